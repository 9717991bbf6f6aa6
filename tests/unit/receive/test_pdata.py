"""P-DATA is cut right, however it is split: the errors of such code lie at the borders."""

from __future__ import annotations

import random
import struct

import pytest
from pynetdicom.pdu import P_DATA_TF

from overread.receive.upper_layer.pdata import Cutter, Fragment, Malformed

from .raw import RELEASE, pdata, value

Values = list[tuple[int, int, bytes]]


def gather(portions: list[bytes], longest: int = 1 << 20) -> Values:
    """What a Cutter makes of portions: each presentation data value put together again."""
    cutter, found, open_value = Cutter(longest), [], b""
    for portion in portions:
        used, fragments = cutter.cut(memoryview(portion))
        assert used == len(portion)
        for fragment in fragments:
            assert isinstance(fragment, Fragment)
            open_value += fragment.piece
            if fragment.ends:
                found.append((fragment.context_id, fragment.control, open_value))
                open_value = b""
    assert open_value == b""
    assert cutter.between_pdus
    return found


def stock(pdus: list[bytes]) -> Values:
    """What pynetdicom makes of whole PDUs."""
    found: Values = []
    for whole in pdus:
        pdu = P_DATA_TF()
        pdu.decode(whole)
        found += [(n, data[0], data[1:]) for n, data in pdu.to_primitive().presentation_data_value_list]
    return found


PDUS = [
    pdata(value(1, 3, b"command")),
    pdata(value(1, 0, b"a" * 9), value(1, 2, b"b")),
    pdata(value(3, 1, b"com"), value(3, 3, b"mand"), value(3, 2, b"\x04" * 20)),
    pdata(value(5, 0, b""), value(5, 2, b"")),
    pdata(value(255, 3, b"\x04\x00\x00\x00\x00\x06")),
]


def test_split_in_two_at_every_offset() -> None:
    whole = b"".join(PDUS)
    for at in range(len(whole) + 1):
        assert gather([whole[:at], whole[at:]]) == stock(PDUS)


def test_split_in_three_at_every_pair_of_offsets() -> None:
    whole = b"".join(PDUS[1:4])
    for first in range(len(whole) + 1):
        for second in range(first, len(whole) + 1):
            assert gather([whole[:first], whole[first:second], whole[second:]]) == stock(PDUS[1:4])


def test_byte_by_byte() -> None:
    whole = b"".join(PDUS)
    assert gather([bytes([byte]) for byte in whole]) == stock(PDUS)


@pytest.mark.parametrize("seed", range(30))
def test_random_conversations_split_at_random(seed: int) -> None:
    chance = random.Random(seed)
    pdus = [
        pdata(
            *(
                value(chance.randrange(1, 256, 2), chance.randrange(4), chance.randbytes(chance.randrange(300)))
                for _ in range(chance.randrange(1, 5))
            )
        )
        for _ in range(20)
    ]
    whole, portions = b"".join(pdus), []
    while whole:
        size = chance.choice([1, 2, 5, 6, 7, 12, 100, 1000])
        portions.append(whole[:size])
        whole = whole[size:]
    assert gather(portions) == stock(pdus)


def test_another_pdu_is_left_where_it_is() -> None:
    cutter = Cutter(1000)
    used, fragments = cutter.cut(memoryview(PDUS[0] + RELEASE))
    assert used == len(PDUS[0])
    assert [bytes(f.piece) for f in fragments] == [b"command"]
    assert cutter.cut(memoryview(RELEASE)) == (0, [])
    assert cutter.between_pdus


@pytest.mark.parametrize(
    "spoiled",
    [
        struct.pack(">BxL", 4, 1 << 30),
        struct.pack(">BxL", 4, 5) + b"12345",
        struct.pack(">BxL", 4, 8) + struct.pack(">LBB", 1, 1, 3) + b"xx",
        struct.pack(">BxL", 4, 8) + struct.pack(">LBB", 0, 1, 3) + b"xx",
        struct.pack(">BxL", 4, 8) + struct.pack(">LBB", 5, 1, 3) + b"xx",
        struct.pack(">BxL", 4, 8) + struct.pack(">LBB", 1 << 31, 1, 3) + b"xx",
        struct.pack(">BxL", 4, 10) + struct.pack(">LBB", 4, 1, 3) + b"xxyy",
    ],
    ids=["longer than negotiated", "no item", "length 1", "length 0", "beyond its PDU", "far beyond", "half an item"],
)
def test_what_makes_no_sense_is_told_as_early_as_it_can_be(spoiled: bytes) -> None:
    with pytest.raises(Malformed):
        gather([spoiled])
    with pytest.raises(Malformed):
        gather([bytes([byte]) for byte in spoiled])
