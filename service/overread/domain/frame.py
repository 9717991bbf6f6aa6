"""One plane of pixels, and everything by which it may belong to another phase than its neighbour."""

from __future__ import annotations

from dataclasses import dataclass, fields

from overread.domain.study import Instance


@dataclass(frozen=True)
class Frame(Instance):
    """A single-frame instance, or one frame of a multi-frame instance with what its functional groups say of it.

    ``frame_number`` counts from 1, as DICOM does; 0 is the whole of a single-frame instance. Times are in ms.
    ``rescale`` is (slope, intercept) where the frame has its own. ``imager_pixel_spacing`` is measured at the detector
    (PS3.3 C.8.11.7), not in the patient.
    """

    frame_number: int = 0
    stack_id: str = ""
    frame_type: str = ""
    echo_time: float | None = None
    b_value: float | None = None
    gradient: str = ""
    temporal_position: int | None = None
    trigger_time: float | None = None
    acquired: str = ""
    content_time: str = ""
    rescale: tuple[float, float] | None = None
    imager_pixel_spacing: tuple[float, ...] = ()
    time: float | None = None

    @classmethod
    def of(cls, instance: Instance, **values: object) -> Frame:
        """``instance`` with ``values`` in place of its own."""
        own = {f.name: getattr(instance, f.name) for f in fields(Instance)}
        return cls(**{**own, **values})
