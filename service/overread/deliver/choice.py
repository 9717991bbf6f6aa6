"""Which of a job's results go to a destination: one variant of each, the first of its order that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from overread.domain.delivery import Item
from overread.domain.result import Result, choose


def chosen(
    items: Sequence[Item], variants: Sequence[str], takes: Callable[[Result], bool]
) -> tuple[list[Item], list[Item]]:
    """The items that go, and those that another variant of the same goes instead of; both in their order.

    Items of one job stand together.
    """
    go: list[Item] = []
    for _, group in groupby(items, key=lambda item: item.job_id):
        go += _of_job(list(group), variants, takes)
    going = set(map(id, go))  # comparing them all with one another would cost more than sending them
    return go, [item for item in items if id(item) not in going]


def _of_job(items: Sequence[Item], variants: Sequence[str], takes: Callable[[Result], bool]) -> Iterable[Item]:
    # A variant that nobody has ordered is still better than none.
    known = dict.fromkeys([*variants, *(i.result.variant for i in items if i.result.alternative)])
    picked = set(choose([item.result for item in items], list(known), takes))
    return (item for item in items if item.result in picked)
