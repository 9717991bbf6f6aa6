"""How bright a segment is, in the unit of its modality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Label
from overread.domain.codes import (
    ATTENUATION,
    HOUNSFIELD,
    INTENSITY,
    MAXIMUM,
    MEAN,
    MINIMUM,
    NO_UNITS,
    STANDARD_DEVIATION,
    Code,
)
from overread.domain.findings import Measurement
from overread.domain.volume import Volume


def measure(volume: Volume, mask: NDArray[np.bool_], label: Label) -> Sequence[Measurement]:  # noqa: ARG001
    """Mean, standard deviation (of the population), minimum and maximum over ``mask`` (slices, rows, columns).

    Attenuation in Hounsfield units for CT, otherwise signal intensity without unit. Sums are float64.
    """
    values = volume.voxels[mask]
    mean = float(values.mean(dtype=np.float64))
    spread = float(values.std(dtype=np.float64))
    name, unit = _unit(volume)
    return (
        Measurement(name, mean, unit, MEAN),
        Measurement(name, spread, unit, STANDARD_DEVIATION),
        Measurement(name, float(values.min()), unit, MINIMUM),
        Measurement(name, float(values.max()), unit, MAXIMUM),
    )


def _unit(volume: Volume) -> tuple[Code, Code]:
    return (ATTENUATION, HOUNSFIELD) if volume.stack.instances[0].modality == "CT" else (INTENSITY, NO_UNITS)
