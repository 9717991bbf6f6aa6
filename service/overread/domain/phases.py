"""One series, several volumes: phases, echoes, b-values, time points that share their positions are told apart.

Nothing is split that does not have to be: a PET has an acquisition number for each bed position and is one volume. Only
when positions repeat is it asked which attributes tell the repeated ones apart, and the fewest that do are taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from overread.domain.errors import Unfit
from overread.domain.frame import Frame
from overread.domain.geometry import stack

Picture = Callable[[Frame], bytes]
Key = tuple[object, ...]

# In the order in which they are believed; by the keyword that a technologist finds in the header.
GROUPING = {
    "frame_type": "FrameType",
    "echo_time": "EchoTime",
    "b_value": "DiffusionBValue",
    "gradient": "DiffusionGradientOrientation",
    "temporal_position": "TemporalPosition",
    "acquisition_number": "AcquisitionNumber",
}
# These differ from slice to slice in many series: they count only when they make exactly as many parts as there are
# slices at one position.
CLOCKS = {"trigger_time": "TriggerTime", "acquired": "AcquisitionTime", "content_time": "ContentTime"}
NAMES = GROUPING | CLOCKS
MOST_TOGETHER = 3


@dataclass(frozen=True)
class Phase:
    """Frames that are one volume; ``title`` names by what they differ from the others, empty when there are none.
    ``duplicates`` is how many identical images were left out."""

    title: str
    frames: tuple[Frame, ...]
    duplicates: int = 0


def phases(frames: Sequence[Frame], picture: Picture) -> list[Phase]:
    """Tell the phases of one series apart, the first in time (echo, b-value …) first.

    ``picture`` gives a digest of a frame's pixels: of identical images at one position one is kept. What cannot be told
    apart comes back as one phase, whose stack will be refused.
    """
    separated = _by_stack(frames)
    if len(separated) > 1:
        return [
            replace(phase, title=", ".join(filter(None, (f"StackID {name}", phase.title))))
            for name, part in separated
            for phase in phases([replace(f, stack_id="") for f in part], picture)
        ]
    if _repeats(frames) < 2 or not all(f.position for f in frames):
        return [Phase("", tuple(frames))]
    found = _told_apart(frames)
    if found:
        return found
    kept = _without_duplicates(frames, picture)
    left_out = len(frames) - len(kept)
    rest = _told_apart(kept) if _repeats(kept) > 1 else [Phase("", tuple(kept))]
    return [replace(phase, duplicates=left_out) for phase in rest or [Phase("", tuple(kept))]]


def _by_stack(frames: Sequence[Frame]) -> list[tuple[object, list[Frame]]]:
    """Stacks of a multi-frame instance are volumes of their own wherever they lie (PS3.3 C.7.6.16.2.2.3)."""
    return [(key[0], part) for key, part in _parts(frames, ("stack_id",))]


def _place(frame: Frame) -> Key:
    return tuple(round(v, 2) for v in (*frame.position, *frame.orientation))


def _repeats(frames: Sequence[Frame]) -> int:
    """How many frames the fullest position has."""
    return max(Counter(map(_place, frames)).values(), default=0)


def _told_apart(frames: Sequence[Frame]) -> list[Phase]:
    """The fewest attributes by which every part has each position once and is a regular stack; or, if there are none,
    by which there are as many parts as repetitions, so that each irregular part can be refused for itself."""
    depth = _repeats(frames)
    second: list[Phase] = []
    for names in _combinations(frames):
        parts = _parts(frames, names)
        if any(_repeats(part) > 1 or len(part) < 2 for _, part in parts):
            continue
        exact = len(parts) == depth
        if not exact and any(name in CLOCKS for name in names):
            continue
        found = [Phase(_title(names, key), tuple(part)) for key, part in parts]
        if all(_regular(part) for _, part in parts):
            return found
        if exact and not second:
            second = found
    return second


def _combinations(frames: Sequence[Frame]) -> Iterator[tuple[str, ...]]:
    varying = [name for name in NAMES if len({getattr(f, name) for f in frames}) > 1]
    for count in range(1, MOST_TOGETHER + 1):
        yield from combinations(varying, count)


def _parts(frames: Sequence[Frame], names: Sequence[str]) -> list[tuple[Key, list[Frame]]]:
    parts: dict[Key, list[Frame]] = {}
    for frame in frames:
        parts.setdefault(tuple(getattr(frame, name) for name in names), []).append(frame)
    return sorted(parts.items(), key=lambda item: tuple(_rank(value) for value in item[0]))


def _rank(value: object) -> tuple[int, float, str]:
    if value is None or value == "":
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    text = str(value)
    return (1, float(text), "") if text.replace(".", "", 1).isdigit() else (2, 0.0, text)


def _title(names: Sequence[str], key: Key) -> str:
    told = [f"{NAMES[n]} {v:g}" if isinstance(v, float) else f"{NAMES[n]} {v}" for n, v in zip(names, key, strict=True)]
    return ", ".join(told)


def _regular(frames: Sequence[Frame]) -> bool:
    try:
        stack(frames, max_tilt_deg=90)
    except Unfit:
        return False
    return True


def _without_duplicates(frames: Sequence[Frame], picture: Picture) -> list[Frame]:
    crowded = {place for place, count in Counter(map(_place, frames)).items() if count > 1}
    kept: list[Frame] = []
    seen: set[tuple[Key, bytes]] = set()
    for frame in sorted(frames, key=lambda f: (f.instance_number or 0, f.sop_instance_uid, f.frame_number)):
        place = _place(frame)
        if place in crowded:
            known = place, picture(frame)
            if known in seen:
                continue
            seen.add(known)
        kept.append(frame)
    return kept
