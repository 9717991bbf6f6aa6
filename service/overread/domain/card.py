"""A model's card: what it accepts, what its labels mean, and its limits, read from ``card.toml``."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from overread.domain.card_ranges import check_ranges
from overread.domain.codes import Code
from overread.domain.errors import CardError
from overread.domain.features import expand
from overread.domain.pipeline import (
    External,
    Inferer,
    Network,
    Postprocess,
    Stage,
    Step,
    check_network,
    check_parts,
    check_stages,
)

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
PREFERENCES = ("thinnest", "most slices")
KINDS = ("volume", "frames", "image")
SALIENCIES = ("", "grad-cam", "occlusion")
TASKS = ("segmentation", "detection", "classification", "image")
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")  # CID 7150


@dataclass(frozen=True)
class Accepts:
    """Which series a model may read. Lengths in mm; ``prefer`` is ``thinnest`` or ``most slices``.

    ``kind`` is ``volume``; ``frames`` for films as (frames, rows, columns), where slices count as frames; ``image`` for
    single images as (1, rows, columns). A volume that is sheared by a tilted gantry is read up to ``max_tilt_deg``.
    """

    modality: str
    sop_classes: tuple[str, ...] = (CT_IMAGE_STORAGE,)
    plane: str = "axial"
    min_slices: int = 2
    max_slices: int = 4000
    min_length_mm: float = 0.0
    max_slice_spacing_mm: float = 1000.0
    body_parts: tuple[str, ...] = ()
    prefer: str = "thinnest"
    kind: str = "volume"
    max_tilt_deg: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What an image must not exceed to be read: shares 0 … 1, ``max_noise`` in the modality's unit (0: no limit).

    ``max_distance`` is from the training data, by the model's profile: 1 is half a range outside of what was seen, 0 is
    not asked.
    """

    max_empty: float = 0.5
    max_truncated: float = 1.0
    max_saturated: float = 1.0
    max_noise: float = 0.0
    max_distance: float = 1.0


@dataclass(frozen=True)
class Texture:
    """How intensities are prepared for radiomics (IBSI 1, sections 2.4 to 2.7): resampled to cubes of ``spacing_mm``
    (0 as they are), limited to ``range`` (lowest, highest), sorted into ``bins`` of equal width, or into bins of
    ``bin_width`` from the lowest of ``range``."""

    bins: int = 32
    bin_width: float = 0.0
    range: tuple[float, ...] = ()
    spacing_mm: float = 0.0


@dataclass(frozen=True)
class Label:
    """One output value of the network and what it is.

    ``instances``: each connected component is a finding of its own, numbered by size. ``smallest_mm``: components whose
    long axis is shorter are noise. ``most`` and ``least_score`` limit the components, or the boxes of a detection.
    ``color`` is RGB, 0–255. ``features``: what is measured beside size and intensity, by the names of
    ``domain.features``.
    """

    value: int
    name: str
    type: Code
    category: Code = ANATOMICAL_STRUCTURE
    modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None
    color: tuple[int, int, int] = (255, 255, 0)
    instances: bool = False
    smallest_mm: float = 0.0
    most: int = 20
    diameters: bool = False
    least_score: float = 0.0
    features: tuple[str, ...] = ()
    texture: Texture = field(default_factory=Texture)


@dataclass(frozen=True)
class Input:
    """One series that the network wants beside others on the same grid, in the order of its channels; ``name`` is what
    the model calls it (T1c, T1, T2, FLAIR).

    Which series it is: of ``modality`` (empty: that of ``accepts``); ``description`` is found in SeriesDescription or
    ProtocolName, ``sequence`` in ScanningSequence or SequenceName, ``without`` in none of them (regular expressions,
    upper and lower case alike); ``contrast`` is with, without or any. All other conditions of ``accepts`` hold, too.
    """

    name: str
    modality: str = ""
    description: str = ""
    sequence: str = ""
    without: str = ""
    contrast: str = "any"


@dataclass(frozen=True)
class Runtime:
    """How a model is run: seconds until it is killed, attempts before it is given up, where, and how urgent.

    ``deadline_s`` is until when its result is wanted, from the study's last image on (0: not said). ``memory_mb`` is
    the most that its process may hold (0: the service's budget). ``out_of_memory`` says what follows when smaller
    batches of windows did not help: cpu, or patience (the device may have more room later).
    """

    timeout_s: float = 900.0
    attempts: int = 3
    device: str = "auto"
    priority: int = 0
    deadline_s: float = 0.0
    memory_mb: int = 0
    out_of_memory: str = "cpu"


@dataclass(frozen=True)
class Card:
    """Everything overread knows of a model without opening its network.

    ``task`` says what the network gives: segmentation, detection (boxes), classification or image (a derived image).
    ``inputs`` has a row for each series that it reads; empty is one. ``folder`` is absolute. ``digest`` is the SHA-256
    over the card and the bundle's configs: with ``weights_sha256`` it names everything that may change a result.
    ``series_number`` is that of its first series of results, 0: overread's choice. ``window`` is the (center, width)
    that pictures are made with, in the modality's unit; empty: the source's own. ``probabilities`` keeps those of a
    segmentation; ``saliency`` lets a classifier explain itself: grad-cam, at ``saliency_layer``, or occlusion.
    ``dice_floor`` is what the model promises on generated phantoms. ``network``: what its authors allow beyond plain
    arithmetic on every window.

    For engines that bring no pipeline of their own: ``preprocess``, ``inferer``, ``postprocess``; ``stages`` when one
    card holds several models; ``external`` for a program; ``features`` for a classifier of regions, in its order;
    ``orientation`` for models that know no directions: what their arrays' x, y, z increase to, such as RAS;
    ``further_weights``: path → SHA-256 of the other members of an ensemble. ``ignored``: values of the output that are
    not to be reported; an answer that holds any other value without a label is refused.
    """

    name: str
    version: str
    title: str
    manufacturer: str
    engine: str
    weights: str
    weights_sha256: str
    accepts: Accepts
    labels: tuple[Label, ...]
    folder: Path
    runtime: Runtime = field(default_factory=Runtime)
    quality: Limits = field(default_factory=Limits)
    task: str = "segmentation"
    inputs: tuple[Input, ...] = ()
    purpose: str = ""
    series_number: int = 0
    window: tuple[float, ...] = ()
    probabilities: bool = False
    saliency: str = ""
    saliency_layer: str = ""
    digest: str = ""
    dice_floor: dict[str, float] = field(default_factory=dict)
    preprocess: tuple[Step, ...] = ()
    inferer: Inferer = field(default_factory=Inferer)
    postprocess: Postprocess = field(default_factory=Postprocess)
    stages: tuple[Stage, ...] = ()
    external: External = field(default_factory=External)
    network: Network = field(default_factory=Network)
    features: tuple[str, ...] = ()
    orientation: str = ""
    further_weights: dict[str, str] = field(default_factory=dict)
    ignored: tuple[int, ...] = ()

    @property
    def all_weights(self) -> dict[str, str]:
        """Every file of weights, of its stages and ensembles too: path in the folder → SHA-256."""
        parts = [(self.weights, self.weights_sha256, self.further_weights)]
        parts += [(stage.weights, stage.weights_sha256, stage.further_weights) for stage in self.stages]
        return {path: sha for first, own, more in parts for path, sha in {first: own, **more}.items() if path}


def require_known(card: Card, values: Iterable[int]) -> None:
    """Raises CardError when an answer holds values that the card does not know: of a part that is left out, nobody
    would learn, and what was there could be told as "nothing found"."""
    labels = {label.value for label in card.labels}
    unknown = sorted(set(values) - labels - {0, *card.ignored})
    if unknown:
        holds = f"value{'s' * (len(unknown) > 1)} {', '.join(map(str, unknown))}"
        raise CardError(
            f"the answer of {card.name} holds the {holds}, which its card does not know; it has labels for "
            f"{', '.join(map(str, sorted(labels))) or 'none'}: add [[labels]] to its card.toml, or "
            f"ignored = {unknown} if that is not to be reported"
        )


def read_card(folder: Path) -> Card:
    """Read ``folder/card.toml``; raises CardError that names the file, the key and what is wrong with it."""
    path = folder / "card.toml"
    try:
        values = tomllib.loads(path.read_text("utf-8"))
        card = replace(_card(values, folder.resolve()), digest=_digest(folder))
        # Several models, or a program: what names them is the card, which holds the digests of all their weights.
        return card if card.weights else replace(card, weights_sha256=card.digest)
    except FileNotFoundError:
        raise CardError(f"{folder} has no card.toml; each model folder needs one") from None
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise CardError(f"{path}: {error}") from None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    code = [p for name in ("configs", "scripts") for p in sorted((folder / name).rglob("*")) if _counts(p)]
    extras = ("profile.json", "plans.json", "dataset.json")
    beside = [folder / name for name in extras if (folder / name).is_file()]
    for path in [folder / "card.toml", *beside, *code]:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _counts(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _card(values: dict[str, Any], folder: Path) -> Card:
    ours = {"folder", "digest"} & set(values)
    if ours:
        raise ValueError(f"the key {ours.pop()} is overread's to fill in; take it out")
    if {"stages", "external"} & set(values):
        values = {"weights": "", "weights_sha256": "", **values}
    if values.get("task") == "image":
        values = {"labels": [], **values}
    card: Card = _build(Card, {**values, "folder": folder}, "")
    numbers = [label.value for label in card.labels]
    if len(set(numbers)) != len(numbers) or not all(0 < n < 65536 for n in numbers):
        raise ValueError("labels must each have a value of its own between 1 and 65535")
    if not numbers and card.task != "image":
        raise ValueError("labels must be there: one [[labels]] table for each output value")
    if card.task not in TASKS:
        raise ValueError(f"task is {card.task!r}; it can be {', '.join(TASKS)}")
    if card.accepts.prefer not in PREFERENCES:
        raise ValueError(f"accepts.prefer is {card.accepts.prefer!r}; it can be {' or '.join(PREFERENCES)}")
    check_ranges(card)
    for row in card.inputs:
        _check_input(row)
    if card.accepts.kind not in KINDS:
        raise ValueError(f"accepts.kind is {card.accepts.kind!r}; it can be {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    _check_pipeline(card)
    return card


def _check_input(row: Input) -> None:
    if row.contrast not in ("any", "with", "without"):
        raise ValueError(f"inputs: {row.name}: contrast is {row.contrast!r}; it can be any, with or without")
    for pattern in (row.description, row.sequence, row.without):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"inputs: {row.name}: {pattern!r} is no regular expression: {error}") from None


def _check_pipeline(card: Card) -> None:
    if card.window and (len(card.window) != 2 or card.window[1] <= 0):
        raise ValueError("window must be [center, width], and the width more than 0")
    if card.saliency not in SALIENCIES or (card.saliency == "grad-cam" and not card.saliency_layer):
        raise ValueError(
            "saliency can be occlusion, or grad-cam with saliency_layer, the name of a layer of the network"
        )
    names = [label.name for label in card.labels]
    check_parts(card.inferer, card.postprocess, names)
    check_network(card.network)
    check_stages(card.stages, names)
    asked = [card.features, *(label.features for label in card.labels), *(stage.features for stage in card.stages)]
    for wanted in asked:
        expand(wanted)
    for label in card.labels:
        if label.texture.bin_width > 0 and len(label.texture.range) != 2:
            raise ValueError("texture.bin_width needs texture.range, whose lowest value the bins begin at")


def called(kind: type[Any]) -> str:
    """A type as TOML calls it, with its article."""
    names = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}
    return names.get(kind, f"a {kind.__name__}")


def _build(kind: Any, values: Any, where: str) -> Any:
    if kind is Code:
        if not isinstance(values, list) or len(values) != 3:
            raise ValueError(f"{where.rstrip('.')} must be a code: [value, scheme, meaning]")
        values = dict(zip(("value", "scheme", "meaning"), values, strict=True))
    if not isinstance(values, dict):
        raise ValueError(f"{where.rstrip('.')} must be a table")
    if kind is Step:
        ours = {key: value for key, value in values.items() if key in ("name", "inputs")}
        values = {**ours, "args": {key: value for key, value in values.items() if key not in ours}}
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"the key {where}{unknown[0]} is not known; known are {', '.join(sorted(hints))}")
    given = {key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()}
    lacking = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING and f.name not in given]
    if lacking:
        raise ValueError(f"the key {where}{lacking[0]} is missing")
    return kind(**given)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, UnionType):
        hint = get_args(hint)[0]
    if hint is Any:
        return value
    if is_dataclass(hint):
        return _build(hint, value, f"{where}.")
    kind, inner = get_origin(hint), get_args(hint)
    if kind is tuple and isinstance(value, list):
        if inner[-1] is not Ellipsis and len(inner) != len(value):
            raise ValueError(f"{where} must have {len(inner)} values, not {len(value)}")
        return tuple(_convert(inner[0], v, f"{where}[{n}]") for n, v in enumerate(value))
    if kind is dict and isinstance(value, dict):
        return {k: _convert(inner[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind or not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} must be {'a list' if kind is tuple else called(hint)}, not {value!r}")
    return value
