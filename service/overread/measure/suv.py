"""Standardized uptake value by body weight, when a PET series says everything that it takes.

SUVbw = activity concentration · body weight / injected dose, decay corrected (PS3.3 C.8.9.1; the QIBA profile for FDG
PET/CT gives the conditions). Nothing is guessed: a series that lacks one of them is unfit for a card that asks for
``suvbw``, and the reason names the attribute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from overread.domain.card import Label
from overread.domain.codes import MAXIMUM, MEAN, MINIMUM, STANDARD_DEVIATION, Code
from overread.domain.errors import Unfit
from overread.domain.features import SUV
from overread.domain.findings import Measurement
from overread.domain.volume import Volume

SUVBW = Code("126401", "DCM", "SUVbw")
GRAM_PER_ML = Code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight")
LONGEST_WAIT = timedelta(hours=24)


def measure(volume: Volume, mask: NDArray[np.bool_], label: Label) -> Sequence[Measurement]:
    """Mean, standard deviation, minimum and maximum of SUVbw over ``mask`` (slices, rows, columns), in g/ml.

    Nothing unless the label asks for ``suvbw``. Raises Unfit, naming the attribute, when the series does not meet the
    conditions.
    """
    if SUV not in label.features:
        return ()
    uptake = volume.voxels[mask].astype(np.float64) * factor([_header(path) for path in volume.paths])
    numbers = {
        MEAN: uptake.mean(),
        STANDARD_DEVIATION: uptake.std(),
        MINIMUM: uptake.min(),
        MAXIMUM: uptake.max(),
    }
    return tuple(Measurement(SUVBW, float(f"{v:.6g}"), GRAM_PER_ML, how) for how, v in numbers.items())


def factor(headers: Sequence[Dataset]) -> float:
    """What turns the rescaled pixels of one PET series into SUVbw, from the headers of its slices.

    Raises Unfit when the series is no PET, its units are neither BQML nor SUVbw, attenuation or decay is not corrected,
    or weight, dose, half life or one of the times is missing.
    """
    first = headers[0]
    if first.get("Modality") != "PT":
        raise Unfit(f"SUVbw needs a PET series; Modality is {first.get('Modality')}")
    units = str(first.get("Units", ""))
    if units == "GML":
        if str(first.get("SUVType", "BW") or "BW") != "BW":
            raise Unfit(f"SUVbw cannot be computed: SUVType is {first.SUVType}, not BW")
        return 1.0
    if units != "BQML":
        raise Unfit(f"SUVbw cannot be computed: Units is {units or 'missing'}, not BQML")
    _require_corrected(first)
    dose = _dose(first)
    weight = _positive(first, "PatientWeight")
    return weight * 1000.0 / (_positive(dose, "RadionuclideTotalDose") * _decay(headers, dose))


def _require_corrected(header: Dataset) -> None:
    value = header.get("CorrectedImage") or []
    corrected = {str(v).upper() for v in ([value] if isinstance(value, str) else value)}
    for word in ("ATTN", "DECY"):
        if word not in corrected:
            raise Unfit(f"SUVbw cannot be computed: CorrectedImage does not contain {word}")


def _dose(header: Dataset) -> Dataset:
    doses = header.get("RadiopharmaceuticalInformationSequence") or []
    if len(doses) != 1:
        raise Unfit(f"SUVbw cannot be computed: RadiopharmaceuticalInformationSequence has {len(doses)} items, not one")
    item: Dataset = doses[0]
    return item


def _decay(headers: Sequence[Dataset], dose: Dataset) -> float:
    """How much of the injected dose is left at the time to which the pixels are corrected."""
    how = str(headers[0].get("DecayCorrection", ""))
    if how == "ADMIN":
        return 1.0
    if how != "START":
        raise Unfit(f"SUVbw cannot be computed: DecayCorrection is {how or 'missing'}, neither START nor ADMIN")
    half_life = _positive(dose, "RadionuclideHalfLife")
    waited = (scanned := _scan_start(headers)) - _injected(dose, scanned)
    if not timedelta(0) <= waited <= LONGEST_WAIT:
        raise Unfit("SUVbw cannot be computed: the injection is not within the 24 hours before the scan")
    return math.pow(2.0, -waited.total_seconds() / half_life)


def _scan_start(headers: Sequence[Dataset]) -> datetime:
    """The series' time, unless an acquisition is earlier: then the series was made anew later, and the earliest
    acquisition is when the scan began."""
    series = _moment(headers[0], "Series")
    acquired = min(_moment(header, "Acquisition") for header in headers)
    return min(series, acquired)


def _injected(dose: Dataset, scanned: datetime) -> datetime:
    whole = _parse(str(dose.get("RadiopharmaceuticalStartDateTime", "") or "").split("+")[0].split("-")[0])
    if whole is not None:
        return whole
    clock = _parse(scanned.strftime("%Y%m%d") + str(dose.get("RadiopharmaceuticalStartTime", "") or ""))
    if clock is None or not dose.get("RadiopharmaceuticalStartTime"):
        raise Unfit("SUVbw cannot be computed: RadiopharmaceuticalStartTime is missing")
    # The time has no date of its own: after the scan it can only mean the evening before.
    return clock if clock <= scanned else clock - timedelta(days=1)


def _moment(header: Dataset, what: str) -> datetime:
    text = f"{header.get(f'{what}Date', '') or ''}{header.get(f'{what}Time', '') or ''}"
    moment = _parse(text) if header.get(f"{what}Date") and header.get(f"{what}Time") else None
    if moment is None:
        raise Unfit(f"SUVbw cannot be computed: {what}Date or {what}Time is missing")
    return moment


def _parse(text: str) -> datetime | None:
    """YYYYMMDDHHMMSS.FFFFFF, from the hour on as much as is there (PS3.5 Section 6.2, DT)."""
    day, _, fraction = text.partition(".")
    for pattern in ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d%H"):
        try:
            moment = datetime.strptime(day, pattern)
        except ValueError:
            continue
        return moment + timedelta(seconds=float(f"0.{fraction}") if fraction.isdigit() else 0.0)
    return None


def _positive(dataset: Dataset, keyword: str) -> float:
    value = dataset.get(keyword)
    if value is None or value == "" or not math.isfinite(float(value)) or float(value) <= 0:
        raise Unfit(f"SUVbw cannot be computed: {keyword} is missing or not positive")
    return float(value)


def _header(path: str) -> Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)
