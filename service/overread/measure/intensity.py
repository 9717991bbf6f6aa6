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

DECIMALS = 2


def measure(volume: Volume, mask: NDArray[np.bool_], label: Label) -> Sequence[Measurement]:  # noqa: ARG001
    """Mean, standard deviation (of the population), minimum and maximum over ``mask`` (slices, rows, columns).

    Attenuation in Hounsfield units for CT, otherwise signal intensity without unit. Sums are float64; numbers are
    rounded to two decimals, since viewers print them as they stand.
    """
    values = volume.voxels[mask]
    numbers = {
        MEAN: values.mean(dtype=np.float64),
        STANDARD_DEVIATION: values.std(dtype=np.float64),
        MINIMUM: values.min(),
        MAXIMUM: values.max(),
    }
    name, unit = _unit(volume)
    return tuple(Measurement(name, round(float(v), DECIMALS), unit, how) for how, v in numbers.items())


def _unit(volume: Volume) -> tuple[Code, Code]:
    return (ATTENUATION, HOUNSFIELD) if volume.stack.instances[0].modality == "CT" else (INTENSITY, NO_UNITS)
