"""Seeded cases for the listener's door: PDUs, command sets and data sets, broken in every way that the layers allow.

A case is what is put on the wire and what may come of it. One seed gives one case: ``case(7)`` is the same everywhere.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from bad_data import CONTEXTS, KINDS
from material import Made, make, new_uid
from wire import (
    ABORT,
    ASSOCIATE_RQ,
    CT,
    ECHO_RQ,
    EXPLICIT,
    IMPLICIT,
    P_DATA,
    RELEASE_RQ,
    STORE_RQ,
    VERIFICATION,
    Plain,
    Scattered,
    associate_rq,
    command_set,
    item,
    p_data,
    short,
)

COMMITMENT = "1.2.840.10008.1.20.1"
PROPOSED = ((VERIFICATION, IMPLICIT), *CONTEXTS, (COMMITMENT, IMPLICIT))
NUMBERS = {context: 2 * at + 1 for at, context in enumerate(PROPOSED)}
ABSURD = [0, 1, 2, 3, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
LONGEST = 16384
Rng = random.Random


@dataclass(frozen=True)
class Case:
    """``sent`` goes out on a fresh connection, after an association when ``associated``.

    ``answered``: the listener owes a message for it. ``data`` by UID is what may be acknowledged, and nothing else.
    ``reset``: the connection is torn down with what is on its way.
    """

    sent: bytes
    associated: bool = True
    answered: bool = False
    reset: bool = False
    uid: str = ""
    data: bytes = field(default=b"", repr=False)


def case(seed: str) -> Case:
    """The case of a seed."""
    rng = random.Random(seed)
    return rng.choices(KINDS_OF_CASE, WEIGHTS)[0](rng)


def mutated(rng: Rng, original: bytes, changes: int = 0) -> bytes:
    """A copy with some bytes flipped, cut out, put in or replaced by absurd lengths."""
    data = bytearray(original)
    for _ in range(changes or rng.choice([1, 1, 2, 4, 8])):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.choice([0, 0xFF, rng.randrange(256)])])
            case 1:
                del data[at : at + rng.randrange(1, 9)]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                data[at : at + 4] = struct.pack(rng.choice("<>") + "L", rng.choice(ABSURD))
            case _:
                other = rng.randrange(len(data) + 1)
                data[at:at] = data[other : other + rng.randrange(1, 33)]
    return bytes(data)


def pdu(kind: int, body: bytes, announced: int | None = None) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body) if announced is None else announced) + body


# --- before an association -------------------------------------------------------------------------------------------


def stray_bytes(rng: Rng) -> Case:
    kinds = [
        b"",
        rng.randbytes(rng.randrange(1, 4096)),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes.fromhex("16030100c8010000c40303") + rng.randbytes(190),
        pdu(rng.randrange(256), rng.randbytes(rng.randrange(200))),
        pdu(rng.randrange(1, 8), rng.randbytes(32), rng.choice(ABSURD)),
    ]
    return Case(rng.choice(kinds), associated=False, reset=rng.random() < 0.2)


def association(rng: Rng) -> Case:
    request = associate_rq("FUZZ", "OVERREAD", PROPOSED, LONGEST)
    kinds = [
        request[: rng.randrange(len(request))],
        request[:6] + mutated(rng, request[6:]),
        mutated(rng, request),
        pdu(ASSOCIATE_RQ, request[6:], rng.choice([*ABSURD, len(request) - 7, len(request) - 5])),
        request * 2,
        request[:-4] + rng.randbytes(rng.randrange(40)),
    ]
    return Case(rng.choice(kinds), associated=False, reset=rng.random() < 0.1)


def contexts(rng: Rng) -> Case:
    names = ["", "1" * 65, "1." * 3000, "../../etc", "1.2\0.3", "A.B", "é", VERIFICATION, IMPLICIT]
    proposed = [(rng.choice(names), rng.choice(names)) for _ in range(rng.choice([0, 1, 2, 128, 200]))]
    whole = associate_rq("FUZZ", "OVERREAD", [(a[:300], s[:300]) for a, s in proposed][:100], rng.choice(ABSURD))
    extra = item(rng.choice([0x51, 0x53, 0x54, 0x56, 0x57, 0x58, 0x59, 0x99]), rng.randbytes(rng.randrange(64)))
    body = whole[6:] + rng.choice([b"", item(0x50, extra), extra])
    return Case(pdu(ASSOCIATE_RQ, body), associated=False)


# --- on an association -----------------------------------------------------------------------------------------------


def p_datas(rng: Rng) -> Case:
    echo = command_set(ECHO_RQ, 1, VERIFICATION)
    number = NUMBERS[VERIFICATION, IMPLICIT]
    whole = p_data(number, [(3, echo)])
    kinds = [
        mutated(rng, whole),
        whole[: rng.randrange(1, len(whole))],
        p_data(rng.choice([0, 2, 99, 255]), [(3, echo)]),
        p_data(number, [(rng.randrange(256), echo)]),
        p_data(number, []),
        p_data(number, [(3, b"")]),
        p_data(number, [(2, b"a data set first")]),
        p_data(number, [(1, bytes([b])) for b in echo[:-1]] + [(3, echo[-1:])]),
        p_data(number, [(1, b"A" * 16000)]) * rng.choice([1, 50]),
        pdu(P_DATA, whole[6:], rng.choice(ABSURD)),
        pdu(P_DATA, struct.pack(">LBB", rng.choice(ABSURD), number, 3) + echo),
        pdu(rng.randrange(256), rng.randbytes(rng.randrange(100))),
        whole * 20 + pdu(RELEASE_RQ, bytes(4)),
        pdu(ABORT, rng.randbytes(4)),
    ]
    return Case(rng.choice(kinds), reset=rng.random() < 0.1)


def commands(rng: Rng) -> Case:
    made = make(rng, 600)
    fields = rng.choice([STORE_RQ, STORE_RQ, ECHO_RQ, 0x20, 0x10, 0x21, 0x100, 0x110, 0x130, 0x140, 0x8001, 0xFFFF])
    command = command_set(fields, rng.randrange(65536), CT, made.uid)
    kinds = [
        mutated(rng, command),
        command[: rng.randrange(len(command))],
        command[:8] + struct.pack("<L", rng.choice(ABSURD)) + command[12:],
        command + struct.pack("<HHL", 0, rng.randrange(65536), rng.choice(ABSURD)) + rng.randbytes(8),
        rng.randbytes(rng.randrange(1, 300)),
        command,
    ]
    number = rng.choice([NUMBERS[CT, EXPLICIT], NUMBERS[COMMITMENT, IMPLICIT], 1, 9])
    data = p_data(rng.choice([number, NUMBERS[CT, EXPLICIT]]), [(2, made.data)])
    return Case(p_data(number, [(3, rng.choice(kinds))]) + data, uid=made.uid, data=made.data)


def endless(rng: Rng) -> Case:
    number = NUMBERS[CT, EXPLICIT]
    command = p_data(number, [(3, command_set(STORE_RQ, 1, CT, new_uid(rng)))])
    pieces = p_data(number, [(0, bytes(16000))]) * rng.randrange(1, 64)
    return Case(command + pieces + rng.choice([b"", command, pdu(ABORT, bytes(4))]), reset=rng.random() < 0.5)


def stored(rng: Rng, made: Made, context: tuple[str, str]) -> Case:
    command = command_set(STORE_RQ, 1, context[0], made.uid)
    shape = rng.choice([Plain(), Scattered(rng=rng)])
    sent = b"".join(shape.pdus(NUMBERS[context], command, [made.data], LONGEST))
    return Case(sent, answered=True, uid=made.uid, data=made.data)


def bad_data(rng: Rng) -> Case:
    bad = rng.choice(KINDS)(rng)
    return stored(rng, Made(bad.uid, "", bad.data), (CT, bad.syntax))


def mutated_data(rng: Rng) -> Case:
    made = make(rng, 600)
    split = made.data.index(struct.pack("<HH", 0x7FE0, 0x10))
    data = mutated(rng, made.data[:split]) + made.data[split:] if rng.random() < 0.7 else mutated(rng, made.data)
    return stored(rng, Made(made.uid, made.study, data), (CT, EXPLICIT))


def cut_short(rng: Rng) -> Case:
    whole = stored(rng, make(rng, 60_000), (CT, EXPLICIT))
    return Case(whole.sent[: rng.randrange(len(whole.sent) - 1)], reset=rng.random() < 0.5)


def good_data(rng: Rng) -> Case:
    return stored(rng, make(rng, 600), (CT, EXPLICIT))


def commitment(rng: Rng) -> Case:
    """N-ACTION, whose data set pynetdicom reads."""
    values = [(0x0003, COMMITMENT.encode() + b"\0"), (0x0100, short(0x0130)), (0x0110, short(1)), (0x0800, short(0))]
    values += [(0x1001, COMMITMENT.encode() + b".1"), (0x1008, short(rng.choice([1, 2, 65535])))]
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in values)
    command = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
    items = b"".join(
        struct.pack("<HHL", 0xFFFE, 0xE000, 8) + struct.pack("<HHL", 8, 0x1150, 0) for _ in range(rng.randrange(4))
    )
    asked = struct.pack("<HHL", 8, 0x1195, 4) + b"1.2\0" + struct.pack("<HHL", 8, 0x1199, len(items)) + items
    number = NUMBERS[COMMITMENT, IMPLICIT]
    data = rng.choice([asked, mutated(rng, asked), rng.randbytes(100), b""])
    command = mutated(rng, command) if rng.random() < 0.3 else command
    return Case(p_data(number, [(3, command)]) + p_data(number, [(2, data)]))


KINDS_OF_CASE: tuple[Callable[[Rng], Case], ...] = (
    stray_bytes, association, contexts, p_datas, commands, endless, bad_data, mutated_data, cut_short, good_data,
    commitment,
)  # fmt: skip
WEIGHTS = (3, 4, 2, 4, 4, 1, 5, 5, 1, 1, 2)
