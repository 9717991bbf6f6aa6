"""Data sets that must never be acknowledged, by kind: each is a good CT and one lie (PS3.5 Sections 7 to 9)."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from material import element, header, make, new_uid
from wire import CT, EXPLICIT, IMPLICIT

JPEG, RLE, DEFLATED, BIG = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
)
CONTEXTS = ((CT, EXPLICIT), (CT, IMPLICIT), (CT, JPEG), (CT, RLE), (CT, DEFLATED), (CT, BIG))
ENDLESS = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = ((0xFFFE, number) for number in (0xE000, 0xE00D, 0xE0DD))
Rng = random.Random


@dataclass(frozen=True)
class Bad:
    """What is sent: the UID of the command, the transfer syntax of the context, and the data set."""

    uid: str
    data: bytes
    syntax: str = EXPLICIT


def delimiter(which: tuple[int, int], length: int = 0) -> bytes:
    return struct.pack("<HHL", *which, length)


def head(rng: Rng, *, rows: int = 8, columns: int = 8, study: str | None = None, inside: str = "") -> tuple[str, bytes]:
    """The UID and all of a CT but its pixels; ``inside`` is another UID than the command's."""
    uid, real = new_uid(rng), new_uid(rng)
    return uid, header(inside or uid, real if study is None else study, f"{real}.1", rows, columns)


def pixels(length: int, announced: int | None = None) -> bytes:
    count = length if announced is None else announced
    return struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OW", 0, count) + bytes(length)


def encapsulated(*items: bytes, end: bytes = delimiter(SEQUENCE_END)) -> bytes:
    opening = struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, ENDLESS)
    return opening + b"".join(delimiter(ITEM, len(i)) + i for i in items) + end


def truncated(rng: Rng) -> Bad:
    made = make(rng, 600)
    return Bad(made.uid, made.data[: rng.randrange(len(made.data))])


def cut_between_elements(rng: Rng) -> Bad:
    uid, data = head(rng)
    groups = (b"\x28\0", b"\x20\0")
    borders = [at for at in range(len(data)) if data[at : at + 2] in groups and data[at + 4 : at + 6].isalpha()]
    return Bad(uid, data[: rng.choice([*borders, len(data)])])


def other_uid(rng: Rng) -> Bad:
    uid, data = head(rng, inside=new_uid(rng))
    return Bad(uid, data + pixels(128))


def other_class(rng: Rng) -> Bad:
    uid, data = head(rng)
    return Bad(uid, data.replace(CT.encode(), CT[:-1].encode() + b"4") + pixels(128))


PATHS = ["../../../tmp/PWNED", "./PWNED", "..", "/etc/passwd", "1/2", "1.2\0/../x", "~root", "C:\\x", "\x1b[2J"]


def path_in_the_data(rng: Rng) -> Bad:
    uid, data = head(rng, inside=rng.choice(PATHS))
    return Bad(uid, data + pixels(128))


def path_in_the_command(rng: Rng) -> Bad:
    path = rng.choice(PATHS)
    _, data = head(rng, inside=path)
    return Bad(path, data + pixels(128))


def path_as_study(rng: Rng) -> Bad:
    uid, data = head(rng, study=rng.choice(PATHS))
    return Bad(uid, data + pixels(128))


def long_uid(rng: Rng) -> Bad:
    long = "1." + "9" * rng.choice([63, 64, 200, 4000])
    return Bad(long, head(rng, inside=long)[1] + pixels(128))


def empty_study(rng: Rng) -> Bad:
    uid, data = head(rng, study="")
    return Bad(uid, data + pixels(128))


def no_study(rng: Rng) -> Bad:
    uid, data = head(rng, study="1.2")
    return Bad(uid, data.replace(element(0x0020000D, "UI", "1.2\0"), b"") + pixels(128))


def explicit_as_implicit(rng: Rng) -> Bad:
    made = make(rng, 600)
    return Bad(made.uid, made.data, IMPLICIT)


def implicit_as_explicit(rng: Rng) -> Bad:
    made = make(rng, 600)
    return Bad(made.uid, b"".join(_without_vr(made.data)), rng.choice([EXPLICIT, DEFLATED]))


def little_as_big(rng: Rng) -> Bad:
    made = make(rng, 600)
    return Bad(made.uid, made.data, BIG)


def _without_vr(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        tag, vr = data[at : at + 4], data[at + 4 : at + 6]
        long = vr in (b"OW", b"OB", b"SQ")
        length = int.from_bytes(data[at + 8 : at + 12] if long else data[at + 6 : at + 8], "little")
        start = at + (12 if long else 8)
        yield tag + struct.pack("<L", length) + data[start : start + length]
        at = start + length


def pixel_length(rng: Rng) -> Bad:
    uid, data = head(rng)
    lie = rng.choice([0, 2, 126, 127, 130, 1 << 20, 0x7FFFFFFF, 0x80000000, ENDLESS - 1, ENDLESS])
    return Bad(uid, data + pixels(128, lie))


def dimensions(rng: Rng) -> Bad:
    rows, columns = rng.choice([(65535, 65535), (8, 9), (65535, 1), (256, 256), (32768, 32768)])
    uid, data = head(rng, rows=rows, columns=columns)
    return Bad(uid, data + pixels(128))


def frames(rng: Rng) -> Bad:
    uid, data = head(rng)
    count = element(0x00280008, "IS", rng.choice(["2", "2147483648", "99999999999"]))
    at = data.index(struct.pack("<HH", 0x28, 0x10))
    return Bad(uid, data[:at] + count + data[at:] + pixels(128))


def huge_frame(rng: Rng) -> Bad:
    uid, data = head(rng, rows=65535, columns=65535)
    return Bad(uid, data + encapsulated(b"", b"\xff\xd8\xff\xdb" + rng.randbytes(96)), JPEG)


def fragments(rng: Rng) -> Bad:
    uid, data = head(rng)
    good = b"\xff\xd8\xff\xdb" + rng.randbytes(96)
    broken = [
        encapsulated(b"", good, end=b""),
        encapsulated(b"", good, end=delimiter(ITEM_END)),
        encapsulated(b"", good, end=delimiter(ITEM, 5000) + b"12"),
        encapsulated(b"", good, end=delimiter(ITEM, ENDLESS)),
        encapsulated(b"", good, end=b"\x08\0\x18\0UI\x02\x001."),
        encapsulated(b""),
        encapsulated(),
        encapsulated(b"abc", good),
        encapsulated(bytes(4000), good),
        encapsulated(b"", rng.randbytes(600)),
        encapsulated(b"", b""),
        pixels(128),
    ]
    return Bad(uid, data + rng.choice(broken), JPEG)


def run_lengths(rng: Rng) -> Bad:
    uid, data = head(rng)
    number = rng.choice([0, 16, 1 << 31])
    return Bad(uid, data + encapsulated(b"", struct.pack("<16L", number, 64, *[0] * 14) + bytes(64)), RLE)


def encapsulated_as_native(rng: Rng) -> Bad:
    uid, data = head(rng)
    return Bad(uid, data + encapsulated(b"", b"\xff\xd8\xff\xdb" + bytes(96)))


def doubled(rng: Rng) -> Bad:
    made = make(rng, 600)
    return Bad(made.uid, made.data * 2)


def deflated_bomb(rng: Rng) -> Bad:
    uid, data = head(rng, rows=4096, columns=4096)
    return Bad(uid, _deflated(data + pixels(32 << 20)), DEFLATED)


def deflated_damage(rng: Rng) -> Bad:
    made = make(rng, 600)
    whole = _deflated(made.data)
    kinds = [whole[: rng.randrange(len(whole) - 2)], b"\xff" + whole[1:], whole + bytes(10), made.data]
    return Bad(made.uid, rng.choice(kinds), DEFLATED)


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def deep(rng: Rng) -> Bad:
    made = make(rng, 600)
    opening = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, ENDLESS) + delimiter(ITEM, ENDLESS)
    closing = delimiter(ITEM_END) + delimiter(SEQUENCE_END)
    levels = rng.choice([65, 500, 5000])
    nested = opening * levels + closing * levels if rng.random() < 0.5 else _measured(rng.choice([65, 500, 2000]))
    at = made.data.index(struct.pack("<HH", 0x10, 0x10))
    return Bad(made.uid, made.data[:at] + nested + made.data[at:])


def _measured(levels: int) -> bytes:
    content = b""
    for _ in range(levels):
        inside = delimiter(ITEM, len(content)) + content
        content = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, len(inside)) + inside
    return content


def unended(rng: Rng) -> Bad:
    made = make(rng, 600)
    opening = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, ENDLESS)
    return Bad(made.uid, made.data + opening * rng.choice([1, 3]))


def wrong_group(rng: Rng) -> Bad:
    made = make(rng, 600)
    return Bad(made.uid, element(rng.choice([0x00000002, 0xFFFEE000]), "UI", "1.2\0") + made.data)


def rubbish(rng: Rng) -> Bad:
    kinds = [b"", b"\0", bytes(1000), b"\xff" * 100, rng.randbytes(3000), b"GET / HTTP/1.1\r\n\r\n"]
    return Bad(new_uid(rng), rng.choice(kinds), rng.choice([EXPLICIT, IMPLICIT, DEFLATED, BIG]))


KINDS: tuple[Callable[[Rng], Bad], ...] = (
    truncated, cut_between_elements, other_uid, other_class, path_in_the_data, path_in_the_command, path_as_study,
    long_uid, empty_study, no_study, explicit_as_implicit, implicit_as_explicit, little_as_big, pixel_length,
    dimensions, frames, huge_frame, fragments, run_lengths, encapsulated_as_native, doubled, deflated_bomb,
    deflated_damage, deep, unended, wrong_group, rubbish,
)  # fmt: skip
