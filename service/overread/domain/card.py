"""A model's card: what it accepts, what its labels mean, and its limits, read from ``card.toml``."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from overread.domain.codes import Code
from overread.domain.errors import CardError

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
PREFERENCES = ("thinnest", "most slices")
TASKS = ("segmentation", "detection", "classification", "image")
ANATOMICAL_STRUCTURE = Code("123037004", "SCT", "Anatomical Structure")


@dataclass(frozen=True)
class Accepts:
    """Which series a model may read. Lengths in mm; ``prefer`` is ``thinnest`` or ``most slices``."""

    modality: str
    sop_classes: tuple[str, ...] = (CT_IMAGE_STORAGE,)
    plane: str = "axial"
    min_slices: int = 2
    max_slices: int = 4000
    min_length_mm: float = 0.0
    max_slice_spacing_mm: float = 1000.0
    body_parts: tuple[str, ...] = ()
    prefer: str = "thinnest"


@dataclass(frozen=True)
class Label:
    """One output value of the network and what it is.

    ``instances``: each connected component is a finding of its own, numbered by size. ``smallest_mm``: components whose
    long axis is shorter are noise. ``most`` and ``least_score`` limit the components, or the boxes of a detection.
    ``color`` is RGB, 0–255.
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


@dataclass(frozen=True)
class Input:
    """One series that the network wants beside others on the same grid, in the order of its channels; ``name`` is what
    the model calls it (T1c, T1, T2, FLAIR)."""

    name: str


@dataclass(frozen=True)
class Runtime:
    """How a model is run: seconds until it is killed, attempts before it is given up, where, and how urgent."""

    timeout_s: float = 900.0
    attempts: int = 3
    device: str = "auto"
    priority: int = 0


@dataclass(frozen=True)
class Card:
    """Everything overread knows of a model without opening its network.

    ``task`` says what the network gives: segmentation, detection (boxes), classification or image (a derived image).
    ``inputs`` has a row for each series that it reads; empty is one. ``folder`` is absolute. ``digest`` is the SHA-256
    over the card and the bundle's configs: with ``weights_sha256`` it names everything that may change a result.
    ``series_number`` is that of its first series of results, 0: overread's choice. ``dice_floor`` is what the model
    promises on generated phantoms.
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
    task: str = "segmentation"
    inputs: tuple[Input, ...] = ()
    purpose: str = ""
    series_number: int = 0
    digest: str = ""
    dice_floor: dict[str, float] = field(default_factory=dict)


def read_card(folder: Path) -> Card:
    """Read ``folder/card.toml``; raises CardError that names the file, the key and what is wrong with it."""
    path = folder / "card.toml"
    try:
        values = tomllib.loads(path.read_text("utf-8"))
        return replace(_card(values, folder.resolve()), digest=_digest(folder))
    except FileNotFoundError:
        raise CardError(f"{folder} has no card.toml; each model folder needs one") from None
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise CardError(f"{path}: {error}") from None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    code = [p for name in ("configs", "scripts") for p in sorted((folder / name).rglob("*")) if _counts(p)]
    for path in [folder / "card.toml", *code]:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _counts(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _card(values: dict[str, Any], folder: Path) -> Card:
    ours = {"folder", "digest"} & set(values)
    if ours:
        raise ValueError(f"the key {ours.pop()} is overread's to fill in; take it out")
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
    return card


def _build(kind: Any, values: Any, where: str) -> Any:
    if kind is Code:
        if not isinstance(values, list) or len(values) != 3:
            raise ValueError(f"{where.rstrip('.')} must be a code: [value, scheme, meaning]")
        values = dict(zip(("value", "scheme", "meaning"), values, strict=True))
    if not isinstance(values, dict):
        raise ValueError(f"{where.rstrip('.')} must be a table")
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
        raise ValueError(f"{where} must be {'a list' if kind is tuple else f'a {hint.__name__}'}, not {value!r}")
    return value
