"""How deeply sequences nest that have a length: looked for only where there is room for so many levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

# The tag, VR, start of the value and length of the element at a position.
ReadHeader = Callable[[int], tuple[int, bytes, int, int]]

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
DELIMITERS = 0xFFFE0000
# The least that a level takes: the header of an element without VR, and that of an item.
LEVEL_BYTES = 16


def room(levels: int, most: int) -> int:
    """How long a sequence on a level, or an item in it, is at least that nests deeper than ``most``."""
    return (most - levels) * LEVEL_BYTES


class _Open(NamedTuple):
    """A sequence or an item that is open: where it ends, 0 when a delimiter says so, and on which level it is."""

    item: bool
    end: int
    level: int


def nests_deeper(
    header: ReadHeader, is_sequence: Callable[[bytes, int, int], bool], span: tuple[int, int], level: int, most: int
) -> bool:
    """Whether the sequence on ``level`` whose items lie in ``span``, from start to end, nests deeper than ``most``.

    ``is_sequence`` is given VR, start and length of an element. What is broken inside ends the search, and is not its
    business.
    """
    at, end = span
    opened = [_Open(False, end, level)]
    while opened and end - at >= 8:
        here = opened[-1]
        if here.end and here.end - at < 8:
            at = opened.pop().end
            continue
        tag, vr, start, length = header(at)
        if tag == (ITEM_END if here.item else SEQUENCE_END) and not here.end:
            opened.pop()
            at = start
            continue
        if (tag >= DELIMITERS) == here.item or (not here.item and tag != ITEM):
            return False
        inner = here.level + here.item
        enters = not here.item or length == UNDEFINED or is_sequence(vr, start, length)
        if enters and inner > most:
            return True
        if enters and (length == UNDEFINED or length >= room(inner, most)):
            opened.append(_Open(not here.item, 0 if length == UNDEFINED else start + length, inner))
            at = start
        else:
            at = start + length
    return False
