"""What one series has to offer to a model: volumes, films or images, each with its reason when it is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from overread.domain.card import Accepts
from overread.domain.film import film, image
from overread.domain.frame import Frame
from overread.domain.geometry import Stack, stack
from overread.domain.phases import phases
from overread.domain.study import Instance


@dataclass(frozen=True)
class Words:
    """What a technologist called a series, how it was acquired, and whether contrast was given."""

    description: str = ""
    sequence: str = ""
    contrast: bool = False


class FrameReader(Protocol):
    """Reads of a stored instance what the ledger does not keep."""

    def frames(self, instance: Instance) -> Sequence[Frame]:
        """All frames of an instance; one for a single-frame instance. Raises Unfit when they cannot be told."""

    def picture(self, frame: Frame) -> bytes:
        """A digest of the frame's pixels as they are stored; raises Unfit when they cannot be read."""

    def words(self, instance: Instance) -> Words:
        """How an instance is described; raises Unfit when its header cannot be read."""


class Headers:
    """Knows no more than the ledger: enough for series of single frames without repeated positions."""

    def frames(self, instance: Instance) -> Sequence[Frame]:
        """The instance itself."""
        return (Frame.of(instance),)

    def picture(self, frame: Frame) -> bytes:
        """Its own name, so that nothing counts as identical."""
        return frame.sop_instance_uid.encode()

    def words(self, instance: Instance) -> Words:
        """Its series description."""
        return Words(instance.series_description)


@dataclass(frozen=True)
class Candidate:
    """``title`` tells it from the others of its series; ``left_out`` is how many identical images it does without."""

    title: str
    frames: tuple[Instance, ...]
    left_out: int = 0

    def stack(self, accepts: Accepts) -> Stack:
        """As the model wants it; raises Unfit with the reason why not."""
        if accepts.kind == "volume":
            return stack(self.frames, max_tilt_deg=accepts.max_tilt_deg)
        frames = [f if isinstance(f, Frame) else Frame.of(f) for f in self.frames]
        return film(frames) if accepts.kind == "frames" else image(frames[0])


def candidates(instances: Sequence[Instance], kind: str, reader: FrameReader) -> list[Candidate]:
    """What the images of one series can be as ``kind``; never empty when there are images. Raises Unfit."""
    if kind == "image":
        return [Candidate(_numbered(i, len(instances)), tuple(reader.frames(i)[:1])) for i in _in_order(instances)]
    if kind == "frames":
        return _films(_in_order(instances), reader)
    if not any(i.number_of_frames > 1 for i in instances) and not _crowded(instances):
        return [Candidate("", tuple(instances))]
    frames = [f for i in _in_order(instances) for f in reader.frames(i)]
    return [Candidate(p.title, p.frames, p.duplicates) for p in phases(frames, reader.picture)]


def _crowded(instances: Sequence[Instance]) -> bool:
    places = {tuple([round(v, 2) for v in i.position]) for i in instances}
    return len(places) < len(instances)


def _films(instances: Sequence[Instance], reader: FrameReader) -> list[Candidate]:
    """Each multi-frame instance is a film; single frames are one for each position, ordered by time."""
    found = [Candidate(_numbered(i, len(instances)), tuple(reader.frames(i))) for i in instances if _many(i)]
    places: dict[tuple[float, ...], list[Frame]] = {}
    for instance in (i for i in instances if not _many(i)):
        (frame,) = reader.frames(instance)
        places.setdefault(tuple(round(v, 2) for v in frame.position), []).append(frame)
    for place, frames in places.items():
        ordered = sorted(frames, key=lambda f: (f.temporal_position or 0, f.trigger_time or 0, f.instance_number or 0))
        title = f"position {', '.join(f'{v:g}' for v in place)}" if len(places) > 1 else ""
        found.append(Candidate(title, tuple(ordered)))
    return found


def _many(instance: Instance) -> bool:
    return instance.number_of_frames > 1


def _in_order(instances: Sequence[Instance]) -> list[Instance]:
    return sorted(instances, key=lambda i: (i.instance_number or 0, i.sop_instance_uid))


def _numbered(instance: Instance, count: int) -> str:
    return f"image {instance.instance_number}" if count > 1 and instance.instance_number is not None else ""
