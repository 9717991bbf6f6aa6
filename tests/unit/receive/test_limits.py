"""Each limit of ``[receive.limits]`` has an answer, and the association, or the listener, goes on after it."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from overread import wiring
from overread.domain.events import InstanceRefused
from overread.settings import Settings
from overread.spool.limits import LIMITS, Limits

from . import raw
from .conftest import CT, EXPLICIT, House, until
from .raw import VERIFICATION, Wire, pdata, value

COMMITMENT = "1.2.840.10008.1.20.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
Slices = list[tuple[str, bytes]]


def test_the_settings_are_the_limits() -> None:
    assert wiring.limits(Settings()) == LIMITS


def deep(data: bytes, levels: int) -> bytes:
    opening = struct.pack("<HH2sHIHHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    at = data.index(struct.pack("<HH", 0x10, 0x10))
    return data[:at] + opening * levels + closing * levels + data[at:]


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("limits", "change", "syntax", "status", "reason"),
    [
        (Limits(instance_bytes=2 << 10), bytes, EXPLICIT, 0xA700, "the data set has more than 0 MB"),
        (Limits(elements=20), bytes, EXPLICIT, 0xC000, "the data set has more than 20 elements"),
        (Limits(depth=9), lambda d: deep(d, 10), EXPLICIT, 0xC000, "nests more than 9 deep"),
        (Limits(frame_bytes=1 << 10), bytes, EXPLICIT, 0xC000, "one frame has 0 MB by its header"),
        (Limits(inflated_bytes=1 << 10), deflated, DEFLATED, 0xC000, "inflates to more than 1024 bytes"),
    ],
)
def test_what_goes_beyond_is_answered_with_the_reason(
    house: Callable[..., House], call: Any, store: Any, ct_bytes: Slices, *, limits: Limits,
    change: Callable[[bytes], bytes], syntax: str, status: int, reason: str,
) -> None:  # fmt: skip
    (uid, data), *_ = ct_bytes
    home = house(limits=limits)
    line = call(home, [(CT, syntax)])
    assert store(line, change(data), uid, CT, syntax) == status
    (refused,) = home.said(InstanceRefused)
    assert reason in refused.reason
    assert line.send_c_echo().Status == 0
    assert home.stored() == []
    assert list((home.spool.root / "incoming").iterdir()) == []


def test_within_its_limits_the_same_is_taken(
    house: Callable[..., House], call: Any, store: Any, ct_bytes: Slices
) -> None:
    home = house()
    line = call(home)
    for (uid, data), levels in zip(ct_bytes, (0, 10, 64), strict=False):
        assert store(line, deep(data, levels) if levels else data, uid) == 0


def ended(home: House, sent: list[bytes]) -> bytes:
    """Say it all on one association, and hear what comes until the end."""
    wire = Wire(home.listener.port)
    wire.socket.settimeout(5)
    wire.send(raw.request([(1, VERIFICATION, raw.IMPLICIT), (3, CT, EXPLICIT), (5, COMMITMENT, raw.IMPLICIT)]))
    assert wire.pdu()[:1] == b"\x02"
    with contextlib.suppress(OSError):  # it did not wait for the end
        wire.send(sent)
    heard = wire.rest()
    wire.close()
    return heard


def test_a_data_set_without_an_end_ends_by_abort(house: Callable[..., House], ct_bytes: Slices) -> None:
    home = house(limits=Limits(instance_bytes=1 << 20))
    pieces = [pdata(value(3, 0, bytes(16000)))] * 200
    ended(home, [pdata(value(3, 3, raw.store_command("1.2.3"))), *pieces])
    assert until(lambda: not list((home.spool.root / "incoming").iterdir()))
    assert until(lambda: home.listener.associations == 0)
    assert home.stored() == []


def test_a_message_that_is_gathered_in_memory_ends_by_abort(house: Callable[..., House]) -> None:
    home = house(max_message_bytes=1 << 20)
    action = raw.command(e0003=COMMITMENT, e0100=0x130, e0110=1, e0800=0, e1001=f"{COMMITMENT}.1", e1008=1)
    ended(home, [pdata(value(5, 3, action)), *[pdata(value(5, 0, bytes(16000)))] * 200])
    assert until(lambda: home.listener.associations == 0)
    assert ended(home, [pdata(value(1, 3, raw.echo_command())), raw.RELEASE])[:1] == b"\x04"
