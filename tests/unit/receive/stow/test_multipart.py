"""The multipart parser alone: the same parts wherever the wire cuts, and however large the pieces are."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from overread.receive.stow.accept import negotiate
from overread.receive.stow.media import read_media_type, split
from overread.receive.stow.multipart import ENOUGH_BYTES, Multipart, NotMultipart, Part

Read = list[tuple[Part, bytes, bool]]


def fed(pieces: list[bytes], boundary: str = "b", header_bytes: int = 1000) -> Read:
    """All parts of a body that comes in these pieces: headers, content, whether a boundary stands behind it."""
    coming = iter([piece for piece in pieces if piece])
    left = b""

    def read_into(room: memoryview) -> int:
        nonlocal left
        left = left or next(coming, b"")
        count = min(len(room), len(left))
        room[:count], left = left[:count], left[count:]
        return count

    multipart, found = Multipart(read_into, boundary, header_bytes), []
    while (part := multipart.next_part()) is not None:
        content = b"".join(bytes(piece) for piece in multipart.pieces())
        found.append((part, content, multipart.terminated))
    return found


def contents(pieces: list[bytes], **more: str) -> list[bytes]:
    return [content for _, content, _ in fed(pieces, **more)]


TRAPS = b"\r\n--", b"\r\n-", b"\r", b"\n--b", b"\r\n--bx", b"\r\n--b-x", b"\r\n--b \tx", b"x--b--", b"", b"\r\n\r\n"
BODY = b"preamble\r\n" + b"".join(b"--b\r\nA: 1\r\nB:2\r\n\r\n" + t + b"\r\n" for t in TRAPS) + b"--b-- \r\nepilogue"


def test_every_cut_gives_the_same_parts() -> None:
    """At every single place, in single bytes, and at every two places of a part with all traps in it."""
    wanted = fed([BODY])
    assert [content for _, content, _ in wanted] == list(TRAPS) and all(ended for _, _, ended in wanted)
    assert wanted[0][0] == Part({"a": "1", "b": "2"})
    assert fed([BODY[i : i + 1] for i in range(len(BODY))]) == wanted
    for at in range(len(BODY)):
        assert fed([BODY[:at], BODY[at:]]) == wanted, at
    small = b"--b\r\n\r\n\r\n--bx\r\n--b\r\n\r\n" + b"y\r\n--b--"
    wanted = fed([small])
    assert [content for _, content, _ in wanted] == [b"\r\n--bx", b"y"]
    for one in range(len(small)):
        for two in range(one, len(small)):
            assert fed([small[:one], small[one:two], small[two:]]) == wanted, (one, two)


@pytest.mark.parametrize("seed", range(20))
def test_large_parts_cut_anywhere(seed: int) -> None:
    """Content around the sizes of the window, with beginnings of the boundary strewn in."""
    rng = random.Random(seed)
    delimiter = b"\r\n--=_long.boundary-0123456789"
    parts = []
    for _ in range(4):
        part = bytearray(rng.randbytes(rng.choice([0, 1, ENOUGH_BYTES, 4 * ENOUGH_BYTES - 3, 300_000])))
        for _ in range(20):
            lure = delimiter[: rng.randrange(1, len(delimiter))]
            at = rng.randrange(len(part) + 1)
            part[at:at] = lure + b"*"
        parts.append(bytes(part))
    body = b"".join(delimiter + b"\r\nX: y\r\n\r\n" + part for part in parts) + delimiter + b"--"
    cuts = sorted(rng.randrange(len(body)) for _ in range(rng.randrange(1, 60)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert contents(pieces, boundary="=_long.boundary-0123456789") == parts


def _endings() -> Iterator[tuple[bytes, bytes]]:
    for tail in (b"", b"\r\n", b"\r\n-", b"\r\n--", b"\r\n--b", b"\r\n--b-", b"\r\n--b \t", b"\r\n--b\r"):
        yield b"--b\r\n\r\ncontent" + tail, tail


@pytest.mark.parametrize(("body", "tail"), list(_endings()), ids=lambda v: repr(v[-8:]))
def test_a_boundary_that_is_cut_off_is_no_content(body: bytes, tail: bytes) -> None:
    for at in range(len(body)):
        assert fed([body[:at], body[at:]]) == [(Part({}), b"content", False)], (tail, at)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (b"--b--", []),
        (b"--b--\r\n", []),
        (b"\r\n--b--", []),
        (b"--b\r\n--b--", [b""]),
        (b"--b\r\n\r\n--b\r\n\r\nx\r\n--b--", [b"", b"x"]),
        (b"--b\r\nC: d\r\n\r\n--b--", [b""]),
    ],
)
def test_parts_without_content_or_headers(body: bytes, parts: list[bytes]) -> None:
    for at in range(len(body) + 1):
        assert contents([body[:at], body[at:]]) == parts or body == b"--b\r\n--b--"


@pytest.mark.parametrize(
    "body", [b"", b"x", b"--", b"--c\r\n\r\nx\r\n--c--", b"x--b\r\n\r\n", b"\n--b\n\n", b"x" * 200_000]
)
def test_what_has_no_boundary_is_no_multipart(body: bytes) -> None:
    with pytest.raises(NotMultipart):
        fed([body])


def test_headers_that_cannot_be_read_cost_their_part_alone() -> None:
    long = b"--b\r\nX: " + b"y" * 400_000 + b"\r\n\r\n1\r\n"
    odd = b"--b\r\nno header\r\n\r\n2\r\n"
    good = b"--b\r\nX: a\r\n folded\r\nX: twice\r\n\r\n3\r\n--b--"
    found = fed([long + odd + good])
    assert ["longer than 1000 bytes" in found[0][0].fault, "not header fields" in found[1][0].fault] == [True, True]
    assert found[2] == (Part({"x": "a folded"}), b"3", True) and len(found) == 3
    assert fed([b"--b\r\nX: cut"])[0][0].fault and fed([b"--b\r\nX: cut"])[0][2] is False


def test_media_types_as_they_are_written() -> None:
    read = read_media_type('Multipart/Related ; Type="application/dicom; x=\\"y\\"";boundary=a"b ; empty ;start=<x;y')
    assert read.name == "multipart/related"
    assert read.parameters == {"type": 'application/dicom; x="y"', "boundary": 'a"b ; empty ;start=<x;y'}
    assert read_media_type("").name == "" and read_media_type('a/b; c="').parameters == {"c": '"'}
    assert split('a, "b, \\", c" ,, d', ",") == ["a", ' "b, \\", c" ', " d"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/dicom+json"),
        ("", "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        ("application/*;q=0.5", "application/dicom+json"),
        ("application/dicom+xml", "application/dicom+xml"),
        ("Application/DICOM+XML; charset=utf-8", "application/dicom+xml"),
        ("text/html, application/dicom+xml;q=0.8, */*;q=0.1", "application/dicom+xml"),
        ("application/dicom+json;q=0.2, application/dicom+xml;q=0.9", "application/dicom+xml"),
        ("application/json", "application/json"),
        ("application/dicom+json;q=0, */*", "application/dicom+xml"),
        ("application/dicom+json;q=nonsense", "application/dicom+json"),
        ("text/html", None),
        ("application/dicom", None),
        ("*/*;q=0", None),
        ('multipart/related; type="application/dicom+xml"', None),
    ],
)
def test_the_answer_comes_in_what_the_sender_likes_best(accept: str | None, chosen: str | None) -> None:
    assert negotiate(accept) == chosen
