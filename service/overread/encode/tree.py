"""The content of a report, read again from its bytes without pydicom, which takes seconds for thousands of items."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from overread.encode.reread import elements, items

_CONTENT, _REFERENCED = 0x0040A730, 0x00081199


class Named(NamedTuple):
    """What an item refers to; ``frame`` and ``segment`` are 0 where it names none."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int
    segment: int


@dataclass(frozen=True)
class Node:
    """One content item: ``name`` and ``value`` are Code Values where they are codes; ``number`` is (value, the same
    with all its digits, unit) of a NUM; ``points`` (n, 2), (column, row), of an SCOORD."""

    kind: str
    name: str
    template: str
    value: str
    number: tuple[float, float, str] | None
    named: Named | None
    graphic: str
    points: NDArray[np.float64]
    children: tuple[Node, ...]

    def walk(self) -> Iterator[Node]:
        """Itself and everything below, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def of(self, kind: str, name: str = "") -> list[Node]:
        """Its children of one value type, and of one name."""
        return [c for c in self.children if c.kind == kind and name in ("", c.name)]


def content(data: bytes, begin: int, end: int) -> tuple[Node, ...]:
    """The items of a Content Sequence's value. Raises ValueError and KeyError when they are none."""
    return tuple(_node(data, *where) for where in items(data, begin, end))


def references(data: bytes) -> dict[str, str]:
    """SOP Instance UID → SOP Class UID of everything in the value of an evidence sequence (PS3.3 C.17.2)."""
    found = {}
    for study in items(data, 0, len(data)):
        for series in items(data, *elements(data, *study)[0x00081115]):
            for one in items(data, *elements(data, *series)[_REFERENCED]):
                told = elements(data, *one)
                found[_text(data, told[0x00081155])] = _text(data, told[0x00081150])
    return found


def _node(data: bytes, begin: int, end: int) -> Node:
    told = elements(data, begin, end)
    texts = [_text(data, told[tag]) for tag in (0x0040A160, 0x0040A124, 0x0040A121) if tag in told]
    value = _code(data, told[0x0040A168]) if 0x0040A168 in told else "".join(texts)
    points = np.frombuffer(data[slice(*told[0x00700022])], "<f4") if 0x00700022 in told else np.zeros(0, "<f4")
    return Node(
        kind=_text(data, told[0x0040A040]),
        name=_code(data, told[0x0040A043]) if 0x0040A043 in told else "",
        template=_inner(data, told[0x0040A504], 0x0040DB00) if 0x0040A504 in told else "",
        value=value,
        number=_number(data, told[0x0040A300]) if 0x0040A300 in told else None,
        named=_named(data, told[_REFERENCED]) if _REFERENCED in told else None,
        graphic=_text(data, told[0x00700023]) if 0x00700023 in told else "",
        points=points.astype(np.float64).reshape(-1, 2),
        children=content(data, *told[_CONTENT]) if _CONTENT in told else (),
    )


def _only(data: bytes, sequence: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """The elements of a sequence's only item."""
    (one,) = items(data, *sequence)
    return elements(data, *one)


def _inner(data: bytes, sequence: tuple[int, int], tag: int) -> str:
    return _text(data, _only(data, sequence)[tag])


def _code(data: bytes, sequence: tuple[int, int]) -> str:
    told = _only(data, sequence)
    return _text(data, told[0x00080100] if 0x00080100 in told else told[0x00080119])


def _number(data: bytes, sequence: tuple[int, int]) -> tuple[float, float, str]:
    told = _only(data, sequence)
    decimal = float(_text(data, told[0x0040A30A]))
    whole = struct.unpack("<d", data[slice(*told[0x0040A161])])[0] if 0x0040A161 in told else decimal
    return decimal, whole, _code(data, told[0x004008EA])


def _named(data: bytes, sequence: tuple[int, int]) -> Named:
    told = _only(data, sequence)
    frame = int(_text(data, told[0x00081160])) if 0x00081160 in told else 0
    segment = int.from_bytes(data[slice(*told[0x0062000B])], "little") if 0x0062000B in told else 0
    return Named(_text(data, told[0x00081150]), _text(data, told[0x00081155]), frame, segment)


def _text(data: bytes, where: tuple[int, int]) -> str:
    return data[slice(*where)].decode().rstrip("\0 ")
