"""A DICOM object that overread made, and its way to a destination."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Result:
    """One Part 10 file in the spool. ``path`` is relative to the spool; ``digest`` the SHA-256 of the file.

    Results of one job that share an ``alternative`` that is not empty (``seg/1``) say the same in different ways, and
    a destination gets one of them. ``variant`` names the way (``binary``, ``labelmap``), in each alternative the same;
    what refers to one of them, such as a report, is made in as many variants. ``provenance`` is that of
    ``domain.provenance``, as text.
    """

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str
    path: str
    digest: str
    alternative: str = ""
    variant: str = ""
    provenance: str = ""


def choose(results: Sequence[Result], order: Sequence[str], takes: Callable[[Result], bool]) -> list[Result]:
    """Which of one job's ``results`` a destination gets, in their order.

    What has no alternative goes in any case. Of the others go those of one variant: the first of ``order`` that is
    there and of which the destination ``takes`` every result; when it takes none wholly, the last of ``order`` that is
    there, so that the refusal is told. References stay right because one variant never refers to another.
    """
    there = [v for v in order if any(r.alternative and r.variant == v for r in results)]
    chosen = next((v for v in there if all(takes(r) for r in results if r.variant == v)), there[-1] if there else "")
    return [r for r in results if not r.alternative or r.variant == chosen]


ROOTS = ("sr-data", "sr", "sr-viewer")


def roots(destinations: Iterable[Collection[str]]) -> dict[str, frozenset[str]]:
    """Which kinds of results a report lists as the root of the result tree: kind of report → kinds.

    ``destinations`` are the kinds that each gets. Its most complete report is the root of what it gets; a report that
    is the root for several lists what all of these get, so that no list names what was never sent.
    """
    found: dict[str, frozenset[str]] = {}
    for kinds in map(frozenset, destinations):
        root = next((kind for kind in ROOTS if kind in kinds), "")
        if root:
            found[root] = found.get(root, kinds) & kinds
    return found


class DeliveryState(StrEnum):
    """Where a delivery is. Only VERIFIED means that the destination has proven it.

    DROPPED: a later result or another variant replaced it before it left, or a person said so.
    """

    PENDING = "PENDING"  # -> SENT, FAILED, DROPPED
    SENT = "SENT"  # -> VERIFIED, ACCEPTED, FAILED, or back to PENDING when the proof is not found
    VERIFIED = "VERIFIED"  # -> PENDING when it is not there any more
    ACCEPTED = "ACCEPTED"  # taken, and nothing more is asked of this destination (proof = "none")
    FAILED = "FAILED"  # a dead letter -> PENDING by a person
    DROPPED = "DROPPED"


OPEN_STATES = (DeliveryState.PENDING, DeliveryState.SENT)
