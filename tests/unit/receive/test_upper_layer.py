"""Each layer answers and keeps, byte for byte, what pynetdicom as it comes does, and falls back to it when it must."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pynetdicom import association, dimse, dimse_messages, dul, fsm, timer, transport

from overread.receive.upper_layer import FAST, STOCK, Layers, hooks
from overread.receive.upper_layer.wire import WireSocket

from . import raw
from .conftest import House, until
from .raw import ABORT, CT, EXPLICIT, MR, RELEASE, VERIFICATION, Wire, pdata, value

Slices = list[tuple[str, bytes]]
NAMES = ("wire", "fragments", "inline", "stream")
LADDER = [
    Layers(*(name in on for name in ("wire", "reactor", "fragments", "inline", "stream", "codec")))
    for n in range(len(NAMES) + 1)
    for others in itertools.product([False, True], repeat=2)
    for on in [{*NAMES[:n], *itertools.compress(("reactor", "codec"), others)}]
]
CONTEXTS = [(1, VERIFICATION, raw.IMPLICIT), (3, CT, EXPLICIT), (5, "1.2.3.4.5", EXPLICIT), (7, MR, EXPLICIT)]


def name(layers: Layers) -> str:
    return "+".join(n for n in vars(layers) if getattr(layers, n)) or "stock"


def hold(home: House, conversation: list[bytes], portions: Callable[[bytes], list[bytes]] = lambda b: [b]) -> bytes:
    """Say each part, wait for one PDU in return, and at the end for all that is left; what was heard."""
    wire = Wire(home.listener.port)
    heard = b""
    for part in conversation:
        wire.send(portions(part))
        heard += wire.pdu()
    heard += wire.rest()
    wire.close()
    return heard


def kept(home: House) -> dict[str, bytes]:
    """Data sets in the spool by SOP Instance UID."""
    found = {}
    for arrival in list(home.arrivals):
        whole = home.spool.absolute(arrival.instance.path).read_bytes()
        found[arrival.instance.sop_instance_uid] = whole[144 + int.from_bytes(whole[140:144], "little") :]
    return found


def conversations(slices: Slices) -> dict[str, list[bytes]]:
    """What a peer may say, part by part; it waits for an answer after each."""
    (first, one), (second, two) = slices[:2]
    hello = raw.request(CONTEXTS)
    short, long = raw.store_pdus(3, first, one, step=100), raw.store_pdus(3, second, two, step=16000, message_id=2)
    command = raw.store_command(first)
    echo = pdata(value(1, 3, raw.echo_command(9)))
    shared = pdata(value(3, 3, command), value(3, 0, one[:500]))
    shared += pdata(value(3, 0, one[500:600]), value(3, 2, one[600:]))
    split = pdata(value(3, 1, command[:10])) + pdata(value(3, 1, command[10:11]), value(3, 3, command[11:]))
    empty_last = pdata(value(3, 3, command)) + pdata(value(3, 0, one)) + pdata(value(3, 2, b""))
    return {
        "echo": [hello, echo, RELEASE],
        "two instances": [hello, short, long, RELEASE],
        "command and data in one PDU": [hello, shared, RELEASE],
        "command in three pieces": [hello, split + pdata(value(3, 2, one)), RELEASE],
        "last fragment empty": [hello, empty_last, RELEASE],
        "stores and echoes": [hello, short, echo, long, echo, RELEASE],
        "another UID in the data set": [hello, raw.store_pdus(3, second, one), short, RELEASE],
        "rubbish for a data set": [hello, raw.store_pdus(3, first, b"\xff" * 64), short, RELEASE],
        "no data set": [hello, raw.store_pdus(3, first, b""), short, RELEASE],
        "another context than the class": [hello, raw.store_pdus(7, first, one), RELEASE],
        "move originator": [
            hello,
            pdata(value(3, 3, raw.command(e0002=CT, e0100=1, e0110=3, e0700=0, e0800=1, e1000=first, e1030="MOVER ",
                                          e1031=4))) + pdata(value(3, 2, one)),
            RELEASE,
        ],
        "aborted": [hello, short, ABORT],
        "only abstract syntaxes that nobody knows": [raw.request([(5, "1.2.3.4.5", EXPLICIT)]), RELEASE],
    }  # fmt: skip


STORIES = (
    "echo", "two instances", "command and data in one PDU", "command in three pieces", "last fragment empty",
    "stores and echoes", "another UID in the data set", "rubbish for a data set", "no data set",
    "another context than the class", "move originator", "aborted", "only abstract syntaxes that nobody knows",
)  # fmt: skip


@pytest.mark.parametrize("layers", LADDER, ids=name)
def test_every_layer_answers_and_keeps_what_stock_does(
    house: Callable[..., House], ct_bytes: Slices, layers: Layers
) -> None:
    told = conversations(ct_bytes)
    assert tuple(told) == STORIES
    for parts in told.values():
        stock, layered = house(layers=STOCK), house(layers=layers)
        assert hold(layered, parts) == hold(stock, parts)
        assert kept(layered) == kept(stock)
        for each in (stock, layered):
            each.listener.stop()


@pytest.mark.parametrize("seed", range(6))
def test_however_the_network_splits_it(house: Callable[..., House], ct_bytes: Slices, seed: int) -> None:
    chance = random.Random(seed)

    def portions(part: bytes) -> list[bytes]:
        found = []
        while part:
            size = chance.choice([1, 3, 6, 7, 100, 1000, 5000])
            found.append(part[:size])
            part = part[size:]
        return found

    home = house()
    stores = [raw.store_pdus(3, uid, data, step=chance.choice([50, 999, 16000])) for uid, data in ct_bytes]
    parts = [raw.request(CONTEXTS), *stores]
    whole = hold(home, [*parts, RELEASE])
    split = house()
    assert hold(split, [*parts, RELEASE], portions) == whole
    assert kept(split) == kept(home) == dict(ct_bytes)


def test_requests_that_do_not_wait_for_answers_are_served_in_order(
    house: Callable[..., House], ct_bytes: Slices
) -> None:
    """A sender that negotiated no window and pushes on all the same."""
    home = house()
    wire = Wire(home.listener.port)
    wire.send(raw.request(CONTEXTS))
    wire.pdu()
    wire.send(b"".join(raw.store_pdus(3, u, d, message_id=n) for n, (u, d) in enumerate(ct_bytes)) + RELEASE)
    answers = [wire.pdu() for _ in ct_bytes]
    assert [a[a.index(b"\x20\x01\x02\0\0\0") + 6] for a in answers] == list(range(len(ct_bytes)))
    assert wire.pdu()[0] == 6
    wire.close()
    assert kept(home) == dict(ct_bytes)


@pytest.mark.parametrize(
    "wrong",
    [
        pdata(value(5, 3, raw.store_command("1.2.3"))) + pdata(value(5, 2, b"data")),
        pdata(value(99, 3, raw.echo_command())),
        pdata(value(3, 3, raw.command(e0002="1.2.3.4", e0100=1, e0110=1, e0700=0, e0800=1, e1000="1.2.3")))
        + pdata(value(3, 2, b"data")),
        pdata(value(3, 3, raw.command(e0002=CT, e0100=0x9999, e0110=1, e0800=0x0101))),
        pdata(value(3, 2, b"data without a command")),
        pdata(value(3, 3, b"rubbish")),
        b"\x04\0\0\0\0\x05abcde",
        b"\x42\0\0\0\0\0",
        raw.request(CONTEXTS),
    ],
    ids=["context not accepted", "context unknown", "class unknown", "command unknown", "data only", "command rubbish",
         "half an item", "PDU unknown", "second request"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # pynetdicom's own, stock
def test_what_stock_does_not_serve_is_not_served(house: Callable[..., House], ct_bytes: Slices, wrong: bytes) -> None:
    """It ends the association; the one after it is served."""
    home = house()
    for _ in range(2):
        wire = Wire(home.listener.port)
        wire.send(raw.request(CONTEXTS))
        assert wire.pdu()[0] == 2
        wire.send(wrong)
        assert wire.rest()[:1] in (b"\x07", b"")
        wire.close()
    assert kept(home) == {}
    assert hold(home, [raw.request(CONTEXTS), raw.store_pdus(3, *ct_bytes[0]), RELEASE])
    assert kept(home) == dict(ct_bytes[:1])
    assert until(lambda: home.listener.associations == 0)


def test_a_peer_that_goes_away_in_mid_object_leaves_nothing(house: Callable[..., House], ct_bytes: Slices) -> None:
    home = house()
    uid, data = ct_bytes[0]
    for end in (b"", ABORT):
        wire = Wire(home.listener.port)
        wire.send(raw.request(CONTEXTS))
        wire.pdu()
        wire.send(pdata(value(3, 3, raw.store_command(uid))) + pdata(value(3, 0, data[:1000])) + end)
        if not end:
            assert until(lambda: list((home.spool.root / "incoming").iterdir()))
        wire.close()
        assert until(lambda: home.listener.associations == 0)
        assert until(lambda: not list((home.spool.root / "incoming").iterdir()))
    assert home.stored() == []


def test_no_thread_or_descriptor_outlives_its_association(house: Callable[..., House], ct_bytes: Slices) -> None:
    home = house(max_associations=50)
    hold(home, [raw.request(CONTEXTS), RELEASE])
    assert until(lambda: home.listener.associations == 0)
    assert until(lambda: not [t for t in threading.enumerate() if "Acceptor" in t.name])
    threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for n in range(60):
        wire = Wire(home.listener.port)
        if n % 3:
            wire.send(raw.request(CONTEXTS))
            wire.pdu()
            wire.send([b"", raw.store_pdus(3, *ct_bytes[0])[: 500 * n], ABORT][n % 3])
        wire.close()
    assert until(lambda: threading.active_count() <= threads)
    assert until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= descriptors)


@pytest.mark.parametrize("layers", [next(layers for layers in LADDER if layers.reactor), FAST], ids=name)
def test_a_request_on_which_pynetdicom_stumbles_leaves_nothing_behind(
    house: Callable[..., House], layers: Layers
) -> None:
    """A transfer syntax without a name raises in its negotiation; the connection ends all the same, and at once."""
    home = house(layers=layers)
    before = set(threading.enumerate())
    wire = Wire(home.listener.port)
    wire.socket.settimeout(3)
    wire.send(raw.request([(1, CT, "")]))
    assert wire.rest()[:1] in (b"", b"\x07")
    wire.close()
    assert until(lambda: not set(threading.enumerate()) - before)


def test_idle_associations_cost_no_time(house: Callable[..., House]) -> None:
    home = house(max_associations=30, network_timeout_s=60.0)
    wires = [Wire(home.listener.port) for _ in range(20)]
    for wire in wires:
        wire.send(raw.request(CONTEXTS))
        wire.pdu()
    before = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - before < 0.1  # stock: 20 × 4 %
    for wire in wires:
        wire.close()


def test_an_idle_association_is_ended_after_its_time(house: Callable[..., House]) -> None:
    home = house(network_timeout_s=0.3)
    wire = Wire(home.listener.port)
    wire.send(raw.request(CONTEXTS))
    assert wire.pdu()[0] == 2
    assert wire.rest()[:1] == b"\x07"
    wire.close()
    assert until(lambda: home.listener.associations == 0)


def test_the_wall_clock_ends_no_association(house: Callable[..., House], monkeypatch: pytest.MonkeyPatch) -> None:
    home = house()
    wire = Wire(home.listener.port)
    wire.send(raw.request(CONTEXTS))
    wire.pdu()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    wire.send(pdata(value(1, 3, raw.echo_command())))
    assert wire.pdu()[0] == 4
    time.sleep(0.2)
    wire.send(pdata(value(1, 3, raw.echo_command())))
    assert wire.pdu()[0] == 4
    wire.close()


@pytest.mark.parametrize("wrong", [{"wire": False}, {"fragments": False}, {"inline": False}])
def test_a_layer_without_what_it_builds_on_is_refused(wrong: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="needs"):
        Layers(**wrong)


def test_a_pynetdicom_that_moved_is_used_as_it_comes(
    house: Callable[..., House], ct_bytes: Slices, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hooks, "ATTRIBUTES", {"dul": ("a_name_of_tomorrow",)})
    home = house(layers=FAST)
    assert "dul.a_name_of_tomorrow" in caplog.text
    hold(home, [raw.request(CONTEXTS), raw.store_pdus(3, *ct_bytes[0]), RELEASE])
    assert kept(home) == dict(ct_bytes[:1])
    assert home.listener.here.server.fitting.layers == STOCK


def test_nagle_is_off_and_the_socket_reads_largely(house: Callable[..., House]) -> None:
    home = house()
    wire = Wire(home.listener.port)
    wire.send(raw.request(CONTEXTS))
    wire.pdu()
    (open_one,) = home.listener.here.server.active_associations
    assert isinstance(open_one.dul.socket, WireSocket)
    assert open_one.dul.socket.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    wire.close()


SOURCES = {
    association.Association._run_reactor: "ca3acbb824fbca27",
    association.Association._serve_request: "7718713783b27256",
    association.Association.kill: "0d566587b22932ff",
    association.Association.run_reactor: "5c468334dccb5495",
    dimse.DIMSEServiceProvider.get_msg: "c212cbcab6189184",
    dimse.DIMSEServiceProvider.receive_primitive: "ce54996cc62896fa",
    dimse.DIMSEServiceProvider.send_msg: "6284933dc0e5925e",
    dimse_messages.DIMSEMessage.decode_msg: "df7467ef19607cff",
    dul.DULServiceProvider.__init__: "bfebea18107e93cc",
    dul.DULServiceProvider._is_transport_event: "c7433456c17b9c59",
    dul.DULServiceProvider._process_recv_primitive: "d5156bb35ad4b15c",
    dul.DULServiceProvider._read_pdu_data: "500d0ff5100c941f",
    dul.DULServiceProvider.kill_dul: "5c3378b832600c76",
    dul.DULServiceProvider.run_reactor: "c648dadd489eec02",
    dul.DULServiceProvider.send_pdu: "23820200e54bb9d5",
    dul.DULServiceProvider.stop_dul: "595de32556aba37f",
    fsm.StateMachine.do_action: "c31269a54de6e38f",
    timer.Timer: "c244368c2c079790",
    transport.AssociationServer: "06547002321c14f4",
    transport.AssociationSocket: "c98093420d3374f1",
    transport.RequestHandler: "6a70fb28b1a19427",
}


@pytest.mark.parametrize("part", SOURCES, ids=lambda p: p.__qualname__)
def test_pynetdicom_is_still_what_the_layers_were_written_against(part: object) -> None:
    """When this fails, a new pynetdicom changed something that a layer replaces or calls.

    Read what changed, see whether the layers must follow, run the comparison with stock above, then renew the digest.
    """
    lines = inspect.getsource(part).splitlines()  # type: ignore[arg-type]
    code = "\n".join(line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))
    assert hashlib.sha256(code.encode()).hexdigest()[:16] == SOURCES[part]  # type: ignore[index]


def test_nothing_that_the_layers_hold_on_to_has_moved() -> None:
    assert hooks.moved() == []
