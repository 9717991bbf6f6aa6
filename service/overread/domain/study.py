"""What came from the wire: instances by their header, grouped into series and studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

LOCALIZER_WORDS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM"})


@dataclass(frozen=True)
class Instance:
    """One stored SOP instance: the attributes that choosing and stacking need, and where its bytes lie.

    Positions and spacings are in mm in the patient coordinate system (LPS, PS3.3 C.7.6.2.1.1); ``pixel_spacing`` is
    (between rows, between columns). ``path`` is relative to the spool; ``digest`` is the XXH3-128 of the data set.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    path: str = ""
    digest: str = ""
    transfer_syntax_uid: str = ""
    modality: str = ""
    image_type: tuple[str, ...] = ()
    series_number: int | None = None
    instance_number: int | None = None
    series_description: str = ""
    body_part: str = ""
    manufacturer: str = ""
    model_name: str = ""
    frame_of_reference_uid: str = ""
    acquisition_number: int | None = None
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int = 1
    samples_per_pixel: int = 1
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    pixel_spacing: tuple[float, ...] = ()
    slice_thickness: float | None = None
    gantry_tilt: float | None = None
    equipment_purposes: tuple[str, ...] = ()
    calling_ae: str = ""
    called_ae: str = ""

    @property
    def is_localizer(self) -> bool:
        """Whether ImageType says that this is a scout image (PS3.3 C.8.2.1.1.1)."""
        return any(word.upper() in LOCALIZER_WORDS for word in self.image_type)

    def stored(self, path: str, digest: str, calling_ae: str, called_ae: str = "") -> Instance:
        """The same, now that it lies in the spool."""
        kept = object.__new__(Instance)  # ``replace`` takes 20 µs, and every instance that comes passes here
        kept.__dict__.update(self.__dict__, path=path, digest=digest, calling_ae=calling_ae, called_ae=called_ae)
        return kept

    def to_json(self) -> dict[str, Any]:
        """Plain values for the ledger."""
        return dict(vars(self))  # all flat: asdict would copy each of them, for every instance that comes

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Instance:
        """The opposite of ``to_json``; keys of another version are left out."""
        known = {f.name for f in fields(cls)}
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return cls(**given)


@dataclass(frozen=True)
class Series:
    """Instances that share a Series Instance UID, in no particular order."""

    uid: str
    instances: tuple[Instance, ...]

    @property
    def first(self) -> Instance:
        return self.instances[0]

    @property
    def modality(self) -> str:
        return self.first.modality


@dataclass(frozen=True)
class Study:
    """Everything that has come of a study so far; ``revision`` counts the times it has grown after being complete.

    ``called_aes`` are those of our AE titles to which any of it was sent.
    """

    uid: str
    revision: int
    series: tuple[Series, ...] = field(default=())
    called_aes: tuple[str, ...] = ()


def group(study_uid: str, revision: int, instances: Iterable[Instance], called_aes: tuple[str, ...] = ()) -> Study:
    """Sort instances into series, by series number and then UID."""
    series: dict[str, list[Instance]] = {}
    for instance in instances:
        series.setdefault(instance.series_uid, []).append(instance)
    ordered = sorted(series.items(), key=lambda item: (item[1][0].series_number or 0, item[0]))
    return Study(study_uid, revision, tuple(Series(uid, tuple(members)) for uid, members in ordered), called_aes)
