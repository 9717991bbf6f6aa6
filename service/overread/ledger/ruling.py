"""What each arrival of a batch means: a new instance, a duplicate, or other content under a known UID.

An instance is known by its study and its SOP Instance UID. Of several contents under one such pair the one that came
last is current; the others are set aside: their files stay, and a conflict says which replaced which.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from overread.domain.study import Instance

OVERTAKING_S = 5.0

Key: TypeAlias = tuple[str, str]  # Study and SOP Instance UID


@dataclass(frozen=True)
class Arrival:
    """One instance that is durable in the spool; ``found`` there by a comparison, not fresh from the network.

    ``at`` is when it came, in seconds since the epoch.
    """

    instance: Instance
    size_bytes: int
    at: float
    found: bool = False


@dataclass(frozen=True)
class Recorded:
    """What one batch was: instances that are new, that were there already, and that came with other content.

    ``disputed`` names the studies with such other content, ordered by UID.
    """

    fresh: int = 0
    duplicates: int = 0
    conflicts: int = 0
    disputed: tuple[str, ...] = ()


class Content(NamedTuple):
    """The current content of an instance, and when it came."""

    digest: str
    at: float
    path: str


@dataclass(frozen=True)
class Conflict:
    """Other content came at ``at`` from ``calling_ae`` under the UID of ``key``; one is ``current`` since, the other
    was ``set_aside``. ``found``: it was found in the spool, long after it came."""

    key: Key
    at: float
    calling_ae: str
    set_aside: Content
    current: Content
    found: bool


@dataclass
class Growth:
    """What a batch means for one study: its counts, and the times (seconds since the epoch) of its arrivals."""

    first_at: float
    last_at: float
    came: bool = False
    fresh: int = 0
    changed: int = 0
    duplicates: int = 0
    conflicts: int = 0
    found_conflicts: int = 0
    modalities: set[str] = field(default_factory=set)
    called_aes: set[str] = field(default_factory=set)


class Ruling:
    """Takes the arrivals of one batch, in their order.

    ``known`` is the current content of every instance of the batch that the ledger has; ``set_aside`` are (study, SOP
    Instance UID, digest) of contents that were replaced earlier. Afterwards ``current`` holds what is to be written,
    with the time that the row gets.
    """

    def __init__(self, known: Mapping[Key, Content], set_aside: Collection[tuple[str, str, str]] = ()) -> None:
        self._known = dict(known)
        self._set_aside = set_aside
        self.current: dict[Key, tuple[Arrival, float]] = {}
        self.conflicts: list[Conflict] = []
        self.studies: dict[str, Growth] = {}

    def take(self, arrival: Arrival) -> None:
        """Rule on one arrival."""
        instance = arrival.instance
        key = (instance.study_uid, instance.sop_instance_uid)
        study = self._study(arrival)
        known = self._known.get(key)
        if known is None:
            study.fresh += 1
            self._accept(key, arrival, arrival.at)
        elif known.digest != instance.digest:
            self._dispute(key, arrival, known, study)
        elif not arrival.found:
            study.duplicates += 1

    def recorded(self) -> Recorded:
        """The batch in numbers."""
        studies = self.studies.values()
        return Recorded(
            sum(s.fresh for s in studies),
            sum(s.duplicates for s in studies),
            len(self.conflicts),
            tuple(sorted({c.key[0] for c in self.conflicts})),
        )

    def _study(self, arrival: Arrival) -> Growth:
        uid, at = arrival.instance.study_uid, arrival.at
        study = self.studies.get(uid)
        if study is None:
            study = self.studies[uid] = Growth(at, at)
        study.first_at, study.last_at = min(study.first_at, at), max(study.last_at, at)
        study.came = study.came or not arrival.found
        study.modalities.add(arrival.instance.modality)
        study.called_aes.add(arrival.instance.called_ae)
        return study

    def _dispute(self, key: Key, arrival: Arrival, known: Content, study: Growth) -> None:
        if _is_later(arrival, known):
            study.changed += 1
            # Never earlier than what it replaces: with a clock that was set back, the next start would turn it round.
            current, set_aside = self._accept(key, arrival, max(arrival.at, known.at)), known
        elif arrival.found and (*key, arrival.instance.digest) in self._set_aside:
            return
        else:
            current, set_aside = known, _content(arrival, arrival.at)
        if arrival.found:
            study.found_conflicts += 1
        else:
            study.conflicts += 1
        self.conflicts.append(Conflict(key, arrival.at, arrival.instance.calling_ae, set_aside, current, arrival.found))

    def _accept(self, key: Key, arrival: Arrival, at: float) -> Content:
        self.current[key] = (arrival, at)
        self._known[key] = content = _content(arrival, at)
        return content


def _content(arrival: Arrival, at: float) -> Content:
    return Content(arrival.instance.digest, at, arrival.instance.path)


def _is_later(arrival: Arrival, known: Content) -> bool:
    if arrival.found:
        return arrival.at > known.at
    # Network threads may overtake each other by a little between disk and ledger. What comes now and claims to be much
    # older was stamped by a clock that has been set back; it is the newest all the same.
    return arrival.at >= known.at or known.at - arrival.at > OVERTAKING_S
