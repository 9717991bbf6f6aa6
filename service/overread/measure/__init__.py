"""Masks become numbers: one file and one line of ``MEASURERS`` for each kind of measurement.

Entry: ``overread.measure.findings.find``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from overread.ports import Measurer

# In the order of a report: viewers such as OHIF show only the first five numbers, and size comes before density.
MEASURERS: dict[str, str] = {
    "volume": "overread.measure.volume:measure",
    "diameter": "overread.measure.diameter:measure",
    "intensity": "overread.measure.intensity:measure",
    "suv": "overread.measure.suv:measure",
    "radiomics": "overread.measure.radiomics:measure",
}
GROUP = "overread.measurements"


def measurers() -> tuple[Measurer, ...]:
    """The measurers of ``MEASURERS`` in its order, then those of other distributions by name; a name of ours wins.

    Raises ImportError or AttributeError when a listed measurer cannot be loaded.
    """
    ours = [_load(target) for target in MEASURERS.values()]
    others = sorted((e for e in entry_points(group=GROUP) if e.name not in MEASURERS), key=lambda e: e.name)
    return (*ours, *(cast(Measurer, e.load()) for e in others))


def _load(target: str) -> Measurer:
    module, _, name = target.partition(":")
    return cast(Measurer, getattr(import_module(module), name))
