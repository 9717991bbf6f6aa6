"""What a MONAI bundle says of itself, read without running any of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from overread.domain.errors import CardError

CONFIGS = ("inference.json", "inference.yaml", "inference.yml")
METADATA = ("metadata.json", "metadata.yaml", "metadata.yml")
TRUTH = frozenset({"label", "labels", "seg", "mask", "gt", "ground_truth"})
WEIGHTS = re.compile(r"[\w./-]*\.(?:pt|pth|pkl|ckpt|safetensors)\b")


@dataclass(frozen=True)
class Described:
    """A bundle's folder, its inference config and its metadata as plain tables."""

    folder: Path
    config_name: str
    config: dict[str, Any]
    metadata: dict[str, Any]

    @property
    def output(self) -> dict[str, Any]:
        """What the metadata says of the prediction: type, format, num_channels, channel_def …"""
        outputs = _table(_table(self.metadata, "network_data_format"), "outputs")
        return _table(outputs, "pred") or next((v for v in outputs.values() if isinstance(v, dict)), {})

    @property
    def inputs(self) -> dict[str, Any]:
        """What the metadata says of each input, by its name."""
        return _table(_table(self.metadata, "network_data_format"), "inputs")

    @property
    def channels(self) -> dict[int, str]:
        """Name of each output channel."""
        named = self.output.get("channel_def")
        pairs = named.items() if isinstance(named, dict) else ()
        return {int(k): str(v) for k, v in pairs if str(k).isdigit()}

    def text(self, key: str) -> str:
        """A text of the metadata, empty when there is none."""
        value = self.metadata.get(key, "")
        return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""


def describe(folder: Path) -> Described:
    """Read what is in ``folder``; raises CardError when it is no bundle."""
    config = next((folder / "configs" / c for c in CONFIGS if (folder / "configs" / c).is_file()), None)
    if config is None:
        raise CardError(f"{folder.name} is no MONAI bundle: it has none of configs/{{{', '.join(CONFIGS)}}}")
    metadata = next((folder / "configs" / c for c in METADATA if (folder / "configs" / c).is_file()), None)
    return Described(folder, config.name, _read(config), _read(metadata) if metadata else {})


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All tables in a config, outermost first."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def texts(value: Any) -> Iterator[str]:
    """All texts in a config."""
    if isinstance(value, str):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(child)


def loaded_keys(bundle: Described) -> list[str]:
    """Under which names the bundle's own loaders read images, without a truth to compare with."""
    found: list[str] = []
    for node in nodes(bundle.config):
        if str(node.get("_target_", "")).rsplit(".", 1)[-1] == "LoadImaged":
            keys = node.get("keys", [])
            for key in [keys] if isinstance(keys, str) else keys:
                name = str(bundle.config.get(str(key)[1:], key)) if str(key).startswith("@") else str(key)
                if name not in [*found, *TRUTH]:
                    found.append(name)
    return found


def weights_of(bundle: Described) -> str:
    """The file of the weights, relative to the folder: what the config loads, else what lies in ``models``."""
    named = [Path(m.group()).name for text in texts(bundle.config) for m in WEIGHTS.finditer(text)]
    there = sorted(p.name for p in (bundle.folder / "models").glob("*") if WEIGHTS.fullmatch(p.name))
    for name in (*(n for n in named if n in there), "model.pt"):
        if name in there:
            return f"models/{name}"
    plain = [name for name in there if name.endswith((".pt", ".pth"))]
    if len(plain) == 1:
        return f"models/{plain[0]}"
    loads = [n for n in named if "arch" not in n and "search" not in n]
    return f"models/{loads[0]}" if loads else "models/model.pt"


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CardError(f"configs/{path.name} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise CardError(f"configs/{path.name} must be a table of sections")
    return values


def _table(values: Any, key: str) -> dict[str, Any]:
    found = values.get(key) if isinstance(values, dict) else None
    return found if isinstance(found, dict) else {}
