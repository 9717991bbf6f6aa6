"""A bundle's inference config: read, adapted, and its parts built by MONAI's own parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImage, LoadImaged, MapTransform

from overread.domain.errors import CardError
from overread.infer import compat
from overread.infer.memory import MemoryReader, name

CONFIGS = ("inference.json", "inference.yaml", "inference.yml")
TRUTH = frozenset({"label", "labels", "seg", "mask", "gt", "ground_truth"})
EXTRAS = {"torchvision": "detection"}


class Recipe:
    """The parts of one bundle by name. Raises CardError, naming the part, when one cannot be built."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        config = _read(folder)
        self.notes = compat.adapt(config, device)
        post = config.get("postprocessing")
        self.notes += compat.nearest_after_argmax(post.get("transforms") if isinstance(post, dict) else post)
        config["bundle_root"] = str(folder)
        config["device"] = device
        self._parser = ConfigParser(config)
        metadata = folder / "configs" / "metadata.json"
        if metadata.is_file():
            self._parser.read_meta(str(metadata))

    @property
    def config(self) -> dict[str, Any]:
        """The config as it stands; what is changed before the first part is built counts."""
        config: dict[str, Any] = self._parser.get()
        return config

    def has(self, part: str) -> bool:
        """Whether the config has a section of this name."""
        return self._parser.get(part) is not None

    def build(self, part: str) -> Any:
        """The object that a section describes; the same one each time."""
        if not self.has(part):
            raise CardError(f"the bundle's inference config has no {part!r} section ({self.folder.name})")
        try:
            return self._parser.get_parsed_content(part)
        except CardError:
            raise
        except Exception as error:
            # The edge to the bundle's own code and expressions.
            raise CardError(f"the bundle's {part!r} cannot be built: {_reason(error)}") from error

    def network(self) -> tuple[str, torch.nn.Module]:
        """The network and the name of its section: the one that the evaluator runs, else network_def or network."""
        evaluator = self.config.get(self.evaluator() or "", {})
        named = str(evaluator.get("network", "")) if isinstance(evaluator, dict) else ""
        known = [named[1:]] if named.startswith("@") and "#" not in named else []
        found = next((part for part in (*known, "network_def", "network", "net") if self.has(part)), "network_def")
        network: torch.nn.Module = self.build(found)
        return found, network

    def evaluator(self) -> str | None:
        """The name of the section that is the bundle's own evaluator."""
        found = [key for key, value in self.config.items() if compat.target(value).endswith("Evaluator")]
        return "evaluator" if "evaluator" in found else next(iter(found), None)


def feed(preprocessing: Any, reader: MemoryReader, count: int) -> Any:
    """Let the bundle's own loaders read from memory; returns the item to give to ``preprocessing``.

    A table of names by the loaders' keys, or a name alone where it loads without keys. What a loader wants beyond the
    images, such as a truth to compare with, may be missing.
    """
    transforms = getattr(preprocessing, "transforms", ())
    keys: list[str] = []
    plain = False
    for transform in transforms:
        loader = transform._loader if isinstance(transform, LoadImaged) else transform
        if isinstance(loader, LoadImage):
            loader.register(reader)
            plain = plain or loader is transform
        if isinstance(transform, LoadImaged):
            keys += [str(key) for key in transform.keys if str(key) not in [*TRUTH, *keys]]
        _may_lack_truth(transform)
    names = [name(n) for n in range(count)]
    if keys and len(keys) == count:
        return dict(zip(keys, names, strict=True))
    whole: Any = names[0] if count == 1 else names
    if len(keys) == 1:
        return {keys[0]: whole}
    if keys:
        named = ", ".join(keys)
        raise CardError(f"the bundle loads {named}; its card has {count} [[inputs]], and it needs one for each")
    if plain:
        return whole
    raise CardError("the bundle's preprocessing has no LoadImage or LoadImaged to read the volume with")


def drop_savers(postprocessing: Any) -> None:
    """Take out what writes files, also where an expression made the list."""
    transforms = getattr(postprocessing, "transforms", None)
    if transforms is not None:
        postprocessing.transforms = tuple(t for t in transforms if not compat.SAVER.search(type(t).__name__))
        for transform in postprocessing.transforms:
            _may_lack_truth(transform)


def _may_lack_truth(transform: Any) -> None:
    """A truth to compare with is not there at inference."""
    keys = getattr(transform, "keys", ()) if isinstance(transform, MapTransform) else ()
    if TRUTH & {str(key) for key in keys}:
        transform.allow_missing_keys = True


def inverts(postprocessing: Any) -> bool:
    """Whether the bundle itself brings its prediction back to the source's grid."""
    return any(type(t).__name__ == "Invertd" for t in getattr(postprocessing, "transforms", ()))


def _read(folder: Path) -> dict[str, Any]:
    path = next((folder / "configs" / c for c in CONFIGS if (folder / "configs" / c).is_file()), None)
    if path is None:
        raise CardError(f"the bundle has none of configs/{{{', '.join(CONFIGS)}}}")
    try:
        config = ConfigParser.load_config_file(str(path))
    except Exception as error:
        # The edge to two parsers, each with errors of its own.
        raise CardError(f"configs/{path.name} cannot be read: {_reason(error)}") from error
    if not isinstance(config, dict):
        raise CardError(f"configs/{path.name} must be a table of sections")
    return config


def _reason(error: BaseException) -> str:
    """The first cause in words, with the remedy where a package is missing."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    if isinstance(root, FileNotFoundError) and root.filename:
        return f"it needs the file {Path(root.filename).name}, which is not there; large_files may say whence"
    text = " ".join(f"{type(root).__name__}: {root}".split())[:200]
    lacking = _lacking(root)
    if lacking is None:
        return text
    extra = EXTRAS.get(lacking)
    remedy = f"pip install 'overread[{extra}]'" if extra else f"pip install {lacking}"
    misfit = "; the one that is installed was built for another torch" if "::" in text else ""
    return f"it needs the package {lacking}: {remedy}{misfit}"


def _lacking(error: BaseException) -> str | None:
    import re

    if isinstance(error, ModuleNotFoundError) and error.name:
        return error.name.split(".")[0]
    text = str(error)
    if "torchvision" in text:
        return "torchvision"
    found = re.search(r"(?:import|package|requires|module) [`'\"]?([A-Za-z_][\w]*)", text)
    if type(error).__name__ == "OptionalImportError" and found:
        return found.group(1)
    return None
