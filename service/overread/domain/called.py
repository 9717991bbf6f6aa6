"""Called AE titles: to which of ours a study was sent says how urgent it is, and which models may read it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

# Requested Procedure Priority (0040,1003), PS3.3 Section C.4.11; the most urgent first.
PRIORITIES = ("STAT", "HIGH", "ROUTINE", "MEDIUM", "LOW")
ROUTINE = "ROUTINE"
STAT = "STAT"
STEP = 1000  # between two of them, so that a card's own priority only orders jobs of the same urgency
SEPARATOR = "\\"  # no AE title holds one (PS3.5 Section 6.2)


@dataclass(frozen=True)
class CalledAE:
    """An AE title that is served: the urgency of what is sent to it, a word for its jobs, the models that may read
    it (none named: all), and within how many seconds of the last image its results are wanted (0: not said)."""

    ae_title: str
    priority: str = ROUTINE
    hint: str = ""
    models: tuple[str, ...] = ()
    deadline_s: float = 0.0


@dataclass(frozen=True)
class Errand:
    """What the called AE titles of a study come to. ``models`` None: any."""

    priority: str = ROUTINE
    hint: str = ""
    models: frozenset[str] | None = None
    deadline_s: float = 0.0

    def due(self, last_at: float, of_card_s: float = 0.0) -> float:
        """When the result of images that were whole at ``last_at`` is wanted: the earlier of title and card, or 0."""
        said = [seconds for seconds in (self.deadline_s, of_card_s) if seconds > 0]
        return last_at + min(said) if said else 0.0

    def rank(self, of_card: int = 0) -> int:
        """By which jobs are ordered, the largest first; ``of_card`` decides between those of the same urgency."""
        most = STEP // 2 - 1
        return (PRIORITIES.index(ROUTINE) - PRIORITIES.index(self.priority)) * STEP + max(-most, min(most, of_card))


def errand(called_aes: Iterable[str], served: Mapping[str, CalledAE]) -> Errand:
    """The most urgent of the titles counts, hints are joined, and a model may read what any of them lets it read."""
    known = [served.get(title, CalledAE(title)) for title in called_aes]
    if not known:
        return Errand()
    priority = min((c.priority for c in known), key=PRIORITIES.index)
    hints = SEPARATOR.join(sorted({c.hint for c in known if c.hint}))
    deadline_s = min((c.deadline_s for c in known if c.deadline_s > 0), default=0.0)
    anything = not all(c.models for c in known)
    return Errand(priority, hints, None if anything else frozenset(m for c in known for m in c.models), deadline_s)


def joined(titles: Collection[str]) -> str:
    """AE titles as one value, as DICOM writes several."""
    return SEPARATOR.join(sorted(set(titles) - {""}))


def parted(value: str) -> tuple[str, ...]:
    """The opposite of ``joined``."""
    return tuple(filter(None, value.split(SEPARATOR)))
