"""Results handed to a destination, and what it said of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from overread.domain.delivery import Item, Proven, Told
from overread.domain.result import Result

Made = tuple[Result, Path]


def items(made: Sequence[Made], **values: Any) -> list[Item]:
    """Made results as a destination is given them."""
    return [Item(result, path, **values) for result, path in made]


def send(there: Any, made: Sequence[Made], *, keep: bool = False, **values: Any) -> dict[str, Told]:
    """Send all; what was told of each, by SOP Instance UID. Associations are released, unless they are to be kept."""
    with _released(there, keep):
        return {item.result.sop_instance_uid: told for item, told in there.send(items(made, **values))}


def prove(there: Any, made: Sequence[Made], *, keep: bool = False, **values: Any) -> list[Proven]:
    """Ask for all; how each stands, in the order in which they were made."""
    with _released(there, keep):
        stands = {item.result.sop_instance_uid: proven for item, proven in there.prove(items(made, **values))}
    return [stands[result.sop_instance_uid] for result, _ in made]


@contextlib.contextmanager
def _released(there: Any, keep: bool) -> Iterator[None]:
    try:
        yield
    finally:
        if not keep and hasattr(there, "close"):
            there.close()
