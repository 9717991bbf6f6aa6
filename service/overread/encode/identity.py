"""Who made a result and by which names it goes: nothing here depends on the clock, the process or chance."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from overread.domain.card import Card
from overread.ports import Read

NAMESPACE = uuid.UUID("6f0c2a0e-6f3b-5b0e-9a58-0d1c7c5d6a11")
LONG_STRING = 64  # characters of a value of VR LO (PS3.5 6.2)

# The kinds' places behind a model's first series number; a model has ten.
OFFSETS = {
    **{"seg": 0, "sr": 1, "unfit": 2, "sr-viewer": 2, "sr-data": 3, "sc": 4, "pdf": 5, "ko": 6},
    **{"map": 7, "image": 7, "gsps": 8, "rtstruct": 8, "rejection": 9},
}
MODELS = 90


@dataclass(frozen=True)
class Maker:
    """The model as a device. IHE AIR wants these equal in the equipment, in the SR's observer and as the algorithm:
    ``model`` is Manufacturer's Model Name and Algorithm Name, ``version`` Software Versions and Algorithm Version."""

    manufacturer: str
    model: str
    version: str
    serial: str
    device_uid: str


def maker(card: Card) -> Maker:
    """The device that ``card`` describes; other weights are another device."""
    return _maker(card, card.title or card.name, [card.weights_sha256, *sorted(card.further_weights.values())])


def makers(card: Card) -> tuple[Maker, ...]:
    """Every algorithm that has a part in a result of ``card``, the one that it goes by first."""
    title = card.title or card.name
    weights = {stage.name: [stage.weights_sha256, *stage.further_weights.values()] for stage in card.stages}
    return (maker(card), *(_maker(card, f"{title}: {name}", own) for name, own in weights.items()))


def _maker(card: Card, model: str, weights: Sequence[str]) -> Maker:
    identity = "|".join((card.manufacturer, card.name, card.version, *weights))
    part = "" if model == (card.title or card.name) else f"|{model}"
    return Maker(
        manufacturer=_long_string(card.manufacturer) or "unknown",
        model=_long_string(model),
        version=_long_string(card.version) or "unknown",
        serial=weights[0][:16] or "unknown",
        device_uid=_uid(f"device|{identity}{part}"),
    )


def uid(key: str, role: str) -> str:
    """A UID below 2.25 (PS3.5 B.2), the same for the same reading and ``role``."""
    return _uid(f"{role}|{key}")


def tracking_uid(read: Read, value: int) -> str:
    """The UID that ties segment ``value`` to its measurements."""
    return uid(read.key, f"tracking {value}")


def series_number(read: Read, kind: str) -> int:
    """After the scanner's own series (9001 … 9900 unless the settings say otherwise), ten for each model, the same in
    each study."""
    first = (
        read.card.series_number or read.style.first_series_number + zlib.crc32(read.card.name.encode()) % MODELS * 10
    )
    return first + OFFSETS.get(kind, 8)


def series_description(read: Read, kind: str) -> str:
    """The model's title and the kind of result, as viewers list it, or what the settings make of them."""
    card, ending = read.card, kind.upper()
    words = {"name": card.name, "version": card.version, "kind": ending}
    room = LONG_STRING - len(read.style.series_description.format(title="", **words))
    title = _long_string(card.title or card.name)[: max(room, 0)]
    return _long_string(read.style.series_description.format(title=title, **words))


def made_at(read: Read, offset: str) -> datetime:
    """When the result was made, on the study's own clock: ``offset`` is Timezone Offset From UTC (``+0100``) or empty
    for UTC."""
    moment = datetime.fromisoformat(read.made_at)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    try:
        minutes = int(offset[0] + "1") * (int(offset[1:3]) * 60 + int(offset[3:5]))
        return moment.astimezone(timezone(timedelta(minutes=minutes)))
    except (IndexError, ValueError):
        return moment.astimezone(UTC)


def _uid(text: str) -> str:
    return f"2.25.{uuid.uuid5(NAMESPACE, text).int}"


def _long_string(text: str) -> str:
    return text.replace("\\", "/").strip()[:LONG_STRING].strip()
