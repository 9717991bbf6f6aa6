"""The Storage SCP over real sockets."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from pynetdicom.association import Association

from overread.domain.errors import Refused
from overread.domain.events import (
    AssociationClosed,
    AssociationOpened,
    AssociationRefused,
    InstanceReceived,
    InstanceRefused,
    Trouble,
)
from overread.domain.study import Instance
from overread.receive import seats
from overread.receive.associations import presentation_contexts
from overread.spool.files import dataset_digest
from overread.spool.header import read_file

from .conftest import House, until

Call = Callable[..., Association]
Store = Callable[..., int]
Slices = list[tuple[str, bytes]]


def test_echo_is_answered(house: Callable[..., House], call: Call) -> None:
    assert call(house()).send_c_echo().Status == 0x0000


def test_what_is_acknowledged_lies_in_the_spool_byte_for_byte(
    house: Callable[..., House], call: Call, store: Store, ct_bytes: Slices
) -> None:
    home = house()
    association = call(home)
    for uid, data in ct_bytes:
        assert store(association, data, uid) == 0x0000
        arrival = home.arrivals[-1]
        path = home.spool.absolute(arrival.instance.path)
        assert path.read_bytes().endswith(data)
        assert dataset_digest(path) == arrival.instance.digest
        assert (arrival.instance.sop_instance_uid, arrival.instance.calling_ae) == (uid, "CT1")
        assert arrival.size_bytes == len(data)
        assert read_file(path).sop_instance_uid == uid
    assert len(home.said(InstanceReceived)) == len(ct_bytes)


def _bundled() -> list[tuple[Path, Instance, bytes]]:
    """pydicom's test files whose header can be read, each with its data set as it lies in the file."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(Path(get_testdata_file("CT_small.dcm")).parent.glob("*.dcm")):
            try:
                instance = read_file(path)
            except Refused:
                continue
            raw = path.read_bytes()
            found.append((path, instance, raw[144 + int.from_bytes(raw[140:144], "little") :]))
    return found


def test_every_transfer_syntax_is_kept_as_it_came(house: Callable[..., House], call: Call, store: Store) -> None:
    """All of pydicom's test files, compressed, deflated, big endian and imperfect ones among them."""
    accepted = {c.abstract_syntax for c in presentation_contexts()}
    files = [f for f in _bundled() if f[1].sop_class_uid in accepted]
    wanted = sorted({(i.sop_class_uid, i.transfer_syntax_uid) for _, i, _ in files})
    assert len({syntax for _, syntax in wanted}) >= 8
    home = house()
    association = call(home, wanted[:120])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, instance, data in files:
            kind = (instance.sop_class_uid, instance.transfer_syntax_uid)
            assert store(association, data, instance.sop_instance_uid, *kind) == 0x0000, path.name
            kept = home.spool.absolute(home.arrivals[-1].instance.path).read_bytes()
            assert kept[144 + int.from_bytes(kept[140:144], "little") :] == data, path.name
            assert home.arrivals[-1].instance.transfer_syntax_uid == instance.transfer_syntax_uid


@pytest.mark.parametrize(
    ("options", "caller", "answer", "word"),
    [
        ({}, {"ae_title": "OTHER"}, (1, 1, 7), "called-ae"),
        ({"allow": [("CT1", "127.0.0.0/8")]}, {"calling": "CT2"}, (1, 1, 3), "calling-ae"),
        ({"allow": [("*", "10.0.0.0/8")]}, {}, (1, 1, 1), "address"),
        ({"room": lambda: False}, {}, (2, 3, 1), "storage-full"),
        ({"room": lambda: 1 / 0}, {}, (2, 3, 1), "storage-full"),
    ],
    ids=["called title", "calling title", "address", "full", "a fault in the admission itself"],
)
def test_who_may_not_come_in_is_rejected_with_the_reason(
    house: Callable[..., House], call: Call, *, options: dict, caller: dict, answer: tuple, word: str
) -> None:
    home = house(**options)
    association = call(home, **caller)
    assert association.is_rejected
    said = association.acceptor.primitive
    assert (said.result, said.result_source, said.diagnostic) == answer
    assert until(lambda: home.said(AssociationRefused))
    assert home.said(AssociationRefused)[0].reason == word
    assert home.listener.associations == 0


def test_one_more_than_the_limit_is_rejected_until_one_leaves(
    house: Callable[..., House], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "IDLE_NEWCOMER_S", 30.0)
    home = house(max_associations=2)
    first, second = call(home), call(home)
    third = call(home)
    assert third.is_rejected
    assert third.acceptor.primitive.result == 2  # transient
    assert home.listener.associations == 2
    first.release()
    assert until(lambda: home.listener.associations == 1)
    assert call(home).is_established
    second.abort()
    assert until(lambda: len(home.said(AssociationClosed)) == 2)
    assert len(home.said(AssociationOpened)) == 3


def test_many_who_call_at_once_do_not_exceed_the_limit(
    house: Callable[..., House], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "IDLE_NEWCOMER_S", 30.0)
    home = house(max_associations=3)
    made: list[Association] = []
    threads = [threading.Thread(target=lambda: made.append(call(home))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(a.is_established for a in made) == 3
    assert sum(a.is_rejected for a in made) == 9


def test_connections_without_association_take_no_slot(house: Callable[..., House], call: Call) -> None:
    """A load balancer's health check, every second, must not shut out a scanner."""
    home = house(max_associations=1)
    held = [socket.create_connection(("127.0.0.1", home.listener.port)) for _ in range(5)]
    for _ in range(20):
        socket.create_connection(("127.0.0.1", home.listener.port)).close()
    assert call(home).send_c_echo().Status == 0x0000
    for connection in held:
        connection.close()


def test_a_spool_that_fills_up_answers_out_of_resources_and_keeps_nothing(
    house: Callable[..., House], call: Call, store: Store, ct_bytes: Slices
) -> None:
    home = house()
    association = call(home)
    assert store(association, ct_bytes[0][1], ct_bytes[0][0]) == 0x0000
    home.room = False
    assert store(association, ct_bytes[1][1], ct_bytes[1][0]) == 0xA700
    assert store(association, b"rubbish!", ct_bytes[1][0]) == 0xA700
    assert len(home.stored()) == len(home.arrivals) == 1
    assert not list((home.spool.root / "quarantine").iterdir())
    home.room = True
    assert store(association, ct_bytes[1][1], ct_bytes[1][0]) == 0x0000


def test_another_uid_than_in_the_command_is_a_mismatch(
    house: Callable[..., House], call: Call, store: Store, ct_bytes: Slices
) -> None:
    home = house()
    other = "1.2.840.10008.5.1.4.1.1.4"
    association = call(home, [("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"), (other, "1.2.840.10008.1.2.1")])
    assert store(association, ct_bytes[0][1], "1.2.3") == 0xA900
    assert store(association, ct_bytes[0][1], ct_bytes[0][0], other) == 0xA900
    assert home.stored() == []
    assert [e.status for e in home.said(InstanceRefused)] == [0xA900, 0xA900]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: b"\xff" * 64, "not encoded as its transfer syntax says"),
        (lambda data: data[:40], "is empty|cannot be read|past the end|is cut|ends"),
        (lambda data: data[:4] + b"\x1a\x00\x00\x00" + data[8:], "not encoded as its transfer syntax says"),
    ],
    ids=["rubbish", "truncated", "implicit on an explicit context"],
)
def test_what_cannot_be_read_is_refused_and_kept_with_the_reason(
    house: Callable[..., House], call: Call, store: Store, *, ct_bytes: Slices, spoil: Any, reason: str
) -> None:
    home = house()
    uid, data = ct_bytes[0]
    spoiled = spoil(data)
    assert store(call(home), spoiled, uid) == 0xC000
    assert home.stored() == []
    assert home.arrivals == []
    assert home.quarantine is not None
    (entry,) = home.quarantine.entries()
    whole = entry.file.read_bytes()
    assert whole[144 + int.from_bytes(whole[140:144], "little") :] == spoiled
    assert re.search(reason, entry.facts.reason)
    assert (entry.facts.calling_ae, entry.facts.status, entry.facts.sop_instance_uid) == ("CT1", 0xC000, uid)
    assert until(lambda: not list((home.spool.root / "incoming").iterdir()))


@pytest.mark.parametrize("name", ["write", "fdatasync", "rename", "fsync", "open"])
def test_a_disk_that_fails_is_never_acknowledged(
    house: Callable[..., House], call: Call, store: Store, ct_bytes: Slices, name: str
) -> None:
    home = house()
    association = call(home)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, fail)
        assert store(association, ct_bytes[0][1], ct_bytes[0][0]) == 0xA700
        if name in ("write", "fdatasync", "open"):
            assert store(association, b"rubbish!", ct_bytes[0][0]) == 0xA700  # nor can it be put in quarantine
    assert home.arrivals == []
    assert not list((home.spool.root / "incoming").iterdir())
    assert store(association, ct_bytes[0][1], ct_bytes[0][0]) == 0x0000


def test_a_fault_of_ours_is_answered_with_try_again(
    house: Callable[..., House], call: Call, store: Store, ct_bytes: Slices
) -> None:
    def fail(_: object) -> None:
        raise KeyError("a bug")

    home = house(keep=fail)
    assert store(call(home), ct_bytes[0][1], ct_bytes[0][0]) == 0xA700
    assert home.said(Trouble)[0].error == "KeyError"


def test_a_pdu_longer_than_negotiated_ends_the_connection(house: Callable[..., House], call: Call) -> None:
    """It announces a gigabyte; not a byte of it is waited for, and others go on."""
    home = house()
    liar = call(home)
    other = call(home)
    started = time.monotonic()
    liar.dul.socket.socket.sendall(b"\x04\x00" + struct.pack(">I", 1 << 30) + b"x" * 1000)
    assert until(lambda: home.listener.associations == 1)
    assert time.monotonic() - started < 3
    assert other.send_c_echo().Status == 0x0000


def test_a_peer_that_stops_inside_a_pdu_is_cut_off(house: Callable[..., House], call: Call) -> None:
    home = house(network_timeout_s=0.3)
    sleeper = call(home)
    sleeper.dul.socket.socket.sendall(b"\x04\x00" + struct.pack(">I", 1000) + b"x" * 10)
    assert until(lambda: home.listener.associations == 0, 4)


def test_stopping_ends_what_is_open(house: Callable[..., House], call: Call) -> None:
    home = house()
    association = call(home)
    home.listener.stop()
    assert until(lambda: home.listener.associations == 0)
    assert until(lambda: not association.is_established)
    home.listener.stop()


def test_a_port_that_is_taken_is_told(house: Callable[..., House]) -> None:
    home = house()
    with pytest.raises(OSError, match="in use"):
        house(port=home.listener.port)


def test_several_associations_store_at_once(
    house: Callable[..., House], call: Call, store: Store, ct_bytes: Slices
) -> None:
    home = house()

    def send(share: Slices) -> None:
        association = call(home)
        for uid, data in share:
            assert store(association, data, uid) == 0x0000

    threads = [threading.Thread(target=send, args=(ct_bytes[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {a.instance.sop_instance_uid for a in home.arrivals} == {uid for uid, _ in ct_bytes}


def test_the_listener_never_pays_for_what_it_does_not_need() -> None:
    """Importing torch and monai costs many seconds and half a GiB."""
    code = (
        "import sys, overread.receive.listener, overread.receive.index\n"
        "print({'torch', 'monai', 'scipy', 'highdicom', 'skimage', 'apscheduler'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
