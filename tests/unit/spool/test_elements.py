"""Whoever cuts, lies, nests or swells is refused, by the tag, in linear time and constant memory."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest

from overread.domain.errors import Refused
from overread.spool import elements
from overread.spool.elements import PIXEL_DATA, Elements, Encoding, scan
from overread.spool.limits import Limits

EXPLICIT = Encoding("Explicit VR Little Endian")
IMPLICIT = Encoding("Implicit VR Little Endian", explicit=False)
BIG = Encoding("Explicit VR Big Endian", little=False)
ENCODINGS = [EXPLICIT, IMPLICIT, BIG]

ENDLESS = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
CLASS, NUMBER, SEQUENCE = 0x00080016, 0x00200013, 0x00081140
WANTED = {CLASS: 64, NUMBER: 16}


def element(encoding: Encoding, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One element; ``length`` may lie, or be ENDLESS."""
    order = "<" if encoding.little else ">"
    count = len(value) if length is None else length
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if not encoding.explicit or tag >> 16 == 0xFFFE:
        return head + struct.pack(f"{order}I", count) + value
    if vr.encode() in elements.SHORT_FORM:
        return head + vr.encode() + struct.pack(f"{order}H", count) + value
    return head + vr.encode() + struct.pack(f"{order}HI", 0, count) + value


def item(encoding: Encoding, content: bytes) -> bytes:
    """One item of undefined length."""
    return element(encoding, ITEM, "", content, ENDLESS) + element(encoding, ITEM_END, "", b"")


def sequence(encoding: Encoding, content: bytes, tag: int = SEQUENCE, vr: str = "SQ") -> bytes:
    """One sequence of undefined length."""
    return element(encoding, tag, vr, content, ENDLESS) + element(encoding, SEQUENCE_END, "", b"")


def fragments(*values: bytes) -> bytes:
    """Encapsulated pixel data: an empty offset table, and fragments."""
    content = b"".join(element(EXPLICIT, ITEM, "", value) for value in (b"", *values))
    return sequence(EXPLICIT, content, PIXEL_DATA, "OB")


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, count: data[offset : offset + count]


def read(data: bytes, encoding: Encoding = EXPLICIT) -> Elements:
    return scan(reader(data), len(data), encoding, WANTED)


def pieces(encoding: Encoding) -> list[bytes]:
    """A small data set of everything that nests, element by element."""
    inner = element(encoding, CLASS, "UI", b"9.9\0") + element(encoding, 0x00080008, "CS", b"")
    unknown = element(IMPLICIT, CLASS, "UI", b"9.9\0")
    return [
        element(encoding, 0x00080005, "CS", b"ISO_IR 100"),
        element(encoding, CLASS, "UI", b"1.2\0"),
        element(encoding, SEQUENCE, "SQ", element(encoding, ITEM, "", inner)),
        sequence(encoding, item(encoding, inner + sequence(encoding, item(encoding, inner)))),
        sequence(encoding, element(encoding, ITEM, "", inner) + item(encoding, b""), 0x00091010),
        sequence(encoding, b"", 0x00091011),
        *([] if encoding is not EXPLICIT else [sequence(EXPLICIT, item(IMPLICIT, unknown), 0x00091012, "UN")]),
        element(encoding, NUMBER, "IS", b"12"),
        element(encoding, PIXEL_DATA, "OW", bytes(6)) if encoding is not EXPLICIT else fragments(b"abcd", b"ef"),
        element(encoding, 0xFFFCFFFC, "OB", bytes(10)),
    ]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_what_is_asked_for_comes_from_the_top_level_alone(encoding: Encoding) -> None:
    data = b"".join(pieces(encoding))
    found = read(data, encoding)
    assert {tag: value[1] for tag, value in found.values.items()} == {CLASS: b"1.2\0", NUMBER: b"12"}
    assert found.values[CLASS][0] == (b"UI" if encoding.explicit else b"")
    (place,) = found.pixels.values()
    assert place.encapsulated == (encoding is EXPLICIT)
    if not place.encapsulated:
        assert (data[place.offset : place.offset + place.length], place.length) == (bytes(6), 6)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_a_cut_anywhere_but_between_two_elements_is_refused(encoding: Encoding) -> None:
    """Up to seven zeros are padding, and so may be the first zeros of a tag."""
    parts = pieces(encoding)
    data = b"".join(parts)
    borders = set(itertools.accumulate(map(len, parts), initial=0))
    for end in range(len(data)):
        rest = data[max(border for border in borders if border <= end) : end]
        if len(rest) < 8 and not any(rest):
            read(data[:end], encoding)
            continue
        with pytest.raises(Refused):
            read(data[:end], encoding)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
@pytest.mark.parametrize("extra", [1, 2, 1000, 40_000])
def test_a_value_that_would_end_behind_the_end_is_refused_by_its_tag(encoding: Encoding, extra: int) -> None:
    start = element(encoding, CLASS, "UI", b"1.2\0")
    for tag, vr in ((NUMBER, "IS"), (0x00091010, "UN"), (PIXEL_DATA, "OW"), (SEQUENCE, "SQ")):
        with pytest.raises(Refused, match=rf"\({tag >> 16:04X},{tag & 0xFFFF:04X}\) runs past the end") as caught:
            read(start + element(encoding, tag, vr, b"DOE ", 4 + extra), encoding)
        assert "DOE" not in str(caught.value)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_items_and_fragments_end_where_they_must(encoding: Encoding) -> None:
    inner = element(encoding, CLASS, "UI", b"9.9\0")
    end = element(encoding, ITEM_END, "", b"")
    wrong = [
        item(encoding, inner)[:-8],  # the item's delimiter is missing: the sequence's comes in its place
        item(encoding, inner) + end,  # a second end
        inner,  # an element between items
        item(encoding, element(encoding, ITEM, "", b"")),  # an item in an item
        element(encoding, ITEM, "", inner, len(inner) + 1000),
        element(encoding, ITEM, "", inner, ENDLESS) + element(encoding, ITEM_END, "", b"\0\0"),
        item(encoding, element(encoding, 0x00091010, "OB", b"12", ENDLESS)),
        item(encoding, element(encoding, 0x7FE00010, "OB", item(encoding, b""), ENDLESS)),  # a fragment without length
    ]
    for content in wrong:
        with pytest.raises(Refused):
            read(element(encoding, CLASS, "UI", b"1.2\0") + sequence(encoding, content), encoding)
    for tag in (ITEM, ITEM_END, SEQUENCE_END, 0x00000002, 0xFFFF0010):
        with pytest.raises(Refused, match="out of place"):
            read(element(encoding, CLASS, "UI", b"1.2\0") + element(encoding, tag, "UL", b"\0\0\0\0"), encoding)


@pytest.mark.parametrize("vr", ["UT", "ZZ", "UC"])
def test_a_value_that_may_not_lack_a_length_is_refused(vr: str) -> None:
    with pytest.raises(Refused, match=r"\(0009,1010\) has no length"):
        read(sequence(EXPLICIT, b"", 0x00091010, vr))


@pytest.mark.parametrize("vr", [b"\0\0", b"  ", b"ui", b"A1", b"\xc0B", b"A\0"])
def test_a_vr_is_two_capital_letters(vr: bytes) -> None:
    start = element(EXPLICIT, CLASS, "UI", b"1.2\0")
    for data in (start + struct.pack("<HH2sH", 9, 0x1010, vr, 0), struct.pack("<HH2sH", 8, 5, vr, 0) + start):
        with pytest.raises(Refused, match=r"not encoded as its transfer syntax says \(Explicit VR Little"):
            read(data)


def test_one_encoding_under_the_name_of_another_is_refused() -> None:
    for real, named in itertools.permutations(ENCODINGS, 2):
        with pytest.raises(Refused):
            read(b"".join(pieces(real)), named)


def test_what_the_standard_allows_or_many_do_is_read() -> None:
    """Unknown VRs have long lengths (PS3.5 Section 7.1.2); odd lengths, any order, and padding are forgiven."""
    start = element(EXPLICIT, 0x00200011, "IS", b"1") + element(EXPLICIT, CLASS, "UI", b"1.2")
    data = start + element(EXPLICIT, 0x00091010, "ZZ", bytes(70_000)) + element(EXPLICIT, NUMBER, "IS", b"123")
    for padding in range(8):
        assert read(data + bytes(padding)).values[NUMBER][1] == b"123"
    with pytest.raises(Refused):
        read(data + bytes(8))
    with pytest.raises(Refused, match="in the middle"):
        read(data + b"\0\0\x01")


@pytest.mark.parametrize("encoding", [EXPLICIT, BIG], ids=lambda e: e.name)
def test_what_somebody_did_not_know_is_implicit_little_endian_inside(encoding: Encoding) -> None:
    """PS3.5 Section 6.2.2, Note 2; and the encoding around it goes on after it."""
    content = item(IMPLICIT, element(IMPLICIT, CLASS, "", b"9.9\0") + sequence(IMPLICIT, item(IMPLICIT, b"")))
    unknown = element(encoding, 0x00091010, "UN", content, ENDLESS) + element(IMPLICIT, SEQUENCE_END, "", b"")
    outer = sequence(encoding, item(encoding, unknown + element(encoding, CLASS, "UI", b"8.8\0")))
    data = unknown + outer + element(encoding, CLASS, "UI", b"1.2\0")
    assert read(data, encoding).values[CLASS][1] == b"1.2\0"


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_depth_costs_no_more_than_length(encoding: Encoding) -> None:
    """100,000 levels, where that is allowed: no recursion, and not one byte read twice but where two windows meet."""
    depth, deep = 100_000, Limits(depth=100_000)
    opening = sequence(encoding, element(encoding, ITEM, "", b"", ENDLESS))[:-8]
    closing = element(encoding, ITEM_END, "", b"") + element(encoding, SEQUENCE_END, "", b"")
    data = element(encoding, CLASS, "UI", b"1.2\0") + opening * depth
    counted = 0

    def read_at(offset: int, count: int) -> bytes:
        nonlocal counted
        counted += count
        return whole[offset : offset + count]

    started = time.monotonic()
    whole = data + closing * depth
    assert scan(read_at, len(whole), encoding, WANTED, deep).values[CLASS][1] == b"1.2\0"
    assert counted < 1.01 * len(whole)
    with pytest.raises(Refused, match="no delimiter before the end"):
        scan(reader(data + closing * (depth - 1)), len(whole) - len(closing), encoding, WANTED, deep)
    with pytest.raises(Refused, match="nests more than 64 deep"):
        read(whole, encoding)
    assert time.monotonic() - started < 10


def measured(encoding: Encoding, levels: int, inside: bytes = b"") -> bytes:
    """Sequences with a length, one in the other; ``inside`` is in each item besides."""
    content = b""
    for _ in range(levels):
        content = element(encoding, SEQUENCE, "SQ", element(encoding, ITEM, "", inside + content))
    return content


@pytest.mark.parametrize("encoding", [EXPLICIT, IMPLICIT], ids=lambda e: e.name)
@pytest.mark.parametrize("bare", [True, False])
def test_depth_counts_where_sequences_have_a_length_too(encoding: Encoding, bare: bool) -> None:
    filler = b"" if bare else element(encoding, CLASS, "UI", b"9.9\0")
    for levels in (1, 64):
        assert read(measured(encoding, levels, filler), encoding)
    for levels in (65, 2000):
        with pytest.raises(Refused, match="nests more than 64 deep"):
            read(measured(encoding, levels, filler), encoding)
        mixed = sequence(encoding, item(encoding, measured(encoding, levels, filler)))
        with pytest.raises(Refused, match="nests more than 64 deep"):
            read(mixed, encoding)
    wide = element(encoding, ITEM, "", element(encoding, NUMBER, "IS", b"12") * 100) * 1000
    assert read(element(encoding, SEQUENCE, "SQ", wide), encoding)
    for broken in (bytes(5000), element(encoding, ITEM, "", b"x" * 3000, 1 << 30)):
        assert read(element(encoding, SEQUENCE, "SQ", broken), encoding)


class Sparse:
    """Zeros, but for what lies at some places; remembers what was asked for."""

    def __init__(self, size_bytes: int, places: dict[int, bytes]) -> None:
        self.size_bytes = size_bytes
        self._places = places
        self.counts: list[int] = []

    def read_at(self, offset: int, count: int) -> bytes:
        self.counts.append(count)
        found = bytearray(max(0, min(count, self.size_bytes - offset)))
        for start, content in self._places.items():
            first, last = max(start, offset), min(start + len(content), offset + len(found))
            if first < last:
                found[first - offset : last - offset] = content[first - start : last - start]
        return bytes(found)


def test_two_gigabytes_of_pixels_are_jumped_over() -> None:
    start = element(EXPLICIT, CLASS, "UI", b"1.2\0") + element(EXPLICIT, PIXEL_DATA, "OW", b"", 2_000_000_000)
    end = element(EXPLICIT, 0xFFFCFFFC, "OB", b"1234")
    size = len(start) + 2_000_000_000 + len(end)
    file = Sparse(size, {0: start, size - len(end): end})
    found = scan(file.read_at, size, EXPLICIT, WANTED)
    assert found.pixels == {PIXEL_DATA: (len(start), 2_000_000_000, False, 0)}
    assert sum(file.counts) < 1 << 20
    with pytest.raises(Refused, match="ends before its"):
        scan(file.read_at, size + 10, EXPLICIT, WANTED)


def test_a_thousand_fragments_of_two_megabytes_are_jumped_over() -> None:
    start = element(EXPLICIT, CLASS, "UI", b"1.2\0") + element(EXPLICIT, PIXEL_DATA, "OB", b"", ENDLESS)
    length = 2_000_000
    places = {0: start}
    at = len(start)
    for _ in range(1000):
        places[at] = element(EXPLICIT, ITEM, "", b"", length)
        at += 8 + length
    places[at] = element(EXPLICIT, SEQUENCE_END, "", b"")
    file = Sparse(at + 8, places)
    assert scan(file.read_at, at + 8, EXPLICIT, WANTED).pixels[PIXEL_DATA].encapsulated
    assert sum(file.counts) < 8 << 20
    assert max(file.counts) <= 1 << 20


def test_a_value_that_is_absurdly_long_is_refused_unread() -> None:
    start = element(EXPLICIT, CLASS, "UT", b"", 1_000_000_000)
    file = Sparse(len(start) + 1_000_000_000, {0: start})
    with pytest.raises(Refused, match=r"\(0008,0016\) has 1000000000 bytes"):
        scan(file.read_at, file.size_bytes, EXPLICIT, WANTED)
    assert sum(file.counts) < 1 << 20


def test_absurdly_many_elements_are_refused() -> None:
    few = Limits(elements=100)
    one = element(EXPLICIT, 0x00080008, "CS", b"1.2 ")
    scan(reader(one * 100), len(one) * 100, EXPLICIT, WANTED, few)
    for data in (one * 101, sequence(EXPLICIT, item(EXPLICIT, one * 98)), fragments(*[b""] * 100)):
        with pytest.raises(Refused, match="more than 100 elements"):
            scan(reader(data), len(data), EXPLICIT, WANTED, few)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_a_data_set_that_begins_again_is_refused(encoding: Encoding) -> None:
    """By a wanted element that comes twice, or by any that comes after the pixels."""
    uid = element(encoding, CLASS, "UI", b"1.2\0")
    pixels = element(encoding, PIXEL_DATA, "OW", bytes(6))
    padding = element(encoding, 0xFFFCFFFC, "OB", bytes(4))
    assert read(uid + pixels + padding, encoding).pixels
    for data, why in (
        (uid + uid, r"\(0008,0016\) comes twice"),
        (uid + pixels + pixels, r"\(7FE0,0010\) comes twice"),
        (uid + pixels + element(encoding, 0x00080008, "CS", b""), r"\(0008,0008\) comes after the pixels"),
        (uid + pixels + padding + uid, r"\(0008,0016\) comes twice"),
    ):
        with pytest.raises(Refused, match=why):
            read(data, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_windows_meet_without_a_seam(encoding: Encoding) -> None:
    """Whatever lies at the border of two windows: 300 lengths move every header over it."""
    for length in range(0, 300):
        filler = element(encoding, 0x00091010, "UN", bytes(elements.WINDOW_BYTES - length))
        data = element(encoding, 0x00080008, "CS", b"") + filler + b"".join(pieces(encoding))
        found = read(data, encoding)
        assert (found.values[CLASS][1], found.values[NUMBER][1]) == (b"1.2\0", b"12")


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: e.name)
def test_damage_gives_elements_or_a_refusal_and_nothing_else(encoding: Encoding) -> None:
    """3,000 copies with up to six bytes changed, the same ones every time."""
    rng = np.random.default_rng(7)
    original = b"".join(pieces(encoding))
    answers = {Elements: 0, Refused: 0}
    for _ in range(3000):
        data = bytearray(original)
        for at in rng.integers(0, len(data), rng.integers(1, 7)):
            data[at] = rng.integers(0, 256)
        try:
            found: object = read(bytes(data), encoding)
        except Refused as error:
            found = error
        answers[type(found)] += 1  # type: ignore[index]
    assert min(answers.values()) > 100
