"""A model's card: what it accepts, what its labels mean, and its limits, read from ``card.toml``."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from overread.domain.codes import Code
from overread.domain.errors import CardError

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
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
    long axis is shorter are noise. ``color`` is RGB, 0–255.
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

    ``folder`` is absolute. ``digest`` is the SHA-256 over the card and the bundle's configs: with ``weights_sha256`` it
    names everything that may change a result. ``dice_floor`` is what the model promises on generated phantoms.
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
    purpose: str = ""
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
    except KeyError as error:
        raise CardError(f"{path}: the key {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise CardError(f"{path}: {error}") from None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in [folder / "card.toml", *sorted((folder / "configs").glob("*"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _card(values: dict[str, Any], folder: Path) -> Card:
    values = dict(values)
    labels = tuple(_label(v) for v in values.pop("labels"))
    if not labels or len({v.value for v in labels}) != len(labels):
        raise CardError(f"{folder}/card.toml: labels must be there, each with a value of its own")
    accepts = Accepts(**_tuples(values.pop("accepts")))
    return Card(labels=labels, accepts=accepts, runtime=Runtime(**values.pop("runtime", {})), folder=folder, **values)


def _label(values: dict[str, Any]) -> Label:
    values = dict(values)
    for key in ("type", "category", "modifier", "region", "region_modifier"):
        if key in values:
            values[key] = Code(*values[key])
    return Label(**_tuples(values))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
