"""When to try again: growing waits with jitter, so that many deliveries do not knock at the same moment."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_MOST_DOUBLINGS = 62


@dataclass(frozen=True)
class Patience:
    """Seconds: the first wait after a failed try, the longest, and after how long a delivery is given up.

    After ``opens_after`` connections that failed one after the other, nothing but probes is sent.
    """

    first_s: float
    longest_s: float
    give_up_after_s: float
    opens_after: int = 3


def next_try(attempts: int, first_s: float, longest_s: float, rng: Random) -> float:
    """Seconds to wait after ``attempts`` failed tries (1 after the first): ``first_s``, doubled for each further try,
    at most ``longest_s``; the wait is drawn from the upper half, so it never falls below half of that."""
    doublings = min(max(attempts - 1, 0), _MOST_DOUBLINGS)
    wait = min(longest_s, first_s * 2.0**doublings)
    return wait * rng.uniform(0.5, 1.0)


def gives_up(waited_s: float, give_up_after_s: float) -> bool:
    """Whether a delivery that has been tried for ``waited_s`` seconds is to be given up."""
    return waited_s >= give_up_after_s
