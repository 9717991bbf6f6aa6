"""The ingest bench measures what it says: the wire is right, loss and change are seen, ratios are of medians."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ingest_parts import measure as measuring
from ingest_parts import process_tree, table
from ingest_parts.blast import store_request
from ingest_parts.data import Load, make_load
from ingest_parts.measure import Cell, Measurement, compare, measure, percentile_ms
from ingest_parts.part10 import read_head
from ingest_parts.receivers import RECEIVERS, Receiver
from pydicom import dcmread

COUNT = 4


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    return make_load("small", tmp_path_factory.mktemp("load") / "small", COUNT)


def test_the_load_is_the_same_every_time_and_looks_like_ct(load: Load, tmp_path: Path) -> None:
    again = make_load("small", tmp_path / "again", COUNT)
    assert again.digests == load.digests and len(load.digests) == COUNT
    image = dcmread(load.files[0])
    assert (
        len(image) > 60 and image.Modality == "CT" and image.RequestAttributesSequence and image[0x0029, 0x1010].value
    )
    assert len({dcmread(file).SeriesInstanceUID for file in load.files}) == 1


def test_shards_share_the_files_out(load: Load) -> None:
    shards = load.shards(3)
    assert [len(list(shard.iterdir())) for shard in shards] == [2, 1, 1]
    assert sorted(link.resolve() for shard in load.shards(3) for link in shard.iterdir()) == sorted(load.files)


@pytest.mark.parametrize(
    "content", [b"", b"DICM", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM\2\0\0\0UL\4\0\xff\xff\0\0"]
)
def test_what_is_no_dicom_file_has_no_head(content: bytes) -> None:
    assert read_head(content) is None


@pytest.mark.parametrize("pdu_bytes", [4096, 16384, 131072])
def test_a_request_is_cut_into_pdus_that_the_peer_takes_and_carries_every_byte(load: Load, pdu_bytes: int) -> None:
    content = load.files[0].read_bytes()
    head = read_head(content)
    assert head is not None
    wire, position, fragments = store_request(head, content, 5, 7, pdu_bytes), 0, []
    while position < len(wire):
        kind, length, item, context, control = struct.unpack_from(">BxLLBB", wire, position)
        assert (kind, context, item) == (4, 5, length - 4) and length <= pdu_bytes
        fragments.append((control, wire[position + 12 : position + 6 + length]))
        position += 6 + length
    assert [control for control, _ in fragments] == [3, *[0] * (len(fragments) - 2), 2]
    assert b"".join(data for _, data in fragments[1:]) == content[head.start :]


def test_loss_and_change_are_seen(load: Load, tmp_path: Path) -> None:
    contents = [file.read_bytes() for file in load.files]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    assert compare(tmp_path, load, None) == (4, "")
    assert compare(tmp_path, load, 3) == (4, "the ledger lists 3 of 4")
    (tmp_path / "0.dcm").unlink()
    (tmp_path / "1.dcm").write_bytes(contents[1][:-1] + b"\xff")
    assert compare(tmp_path, load, 4) == (2, "lost 1 of 4, 1 of 4 not byte-identical")
    (tmp_path / "header of 2").write_bytes(contents[2][:1000])
    assert compare(tmp_path, load, 4)[0] == 2


def test_percentiles() -> None:
    latencies = [n / 1000 for n in range(100, 0, -1)]
    assert (percentile_ms(latencies, 0.5), percentile_ms(latencies, 0.99)) == (51, 100)
    assert percentile_ms([], 0.5) is None


def test_a_listening_port_and_cpu_time_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert process_tree.listens(port)
    assert not process_tree.listens(port)
    assert process_tree.cpu_s(os.getpid()) > 0
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in process_tree.members(os.getpid())
        child.kill()


def test_stock_pynetdicom_gets_what_blast_sends(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_calm", lambda: None)
    stock = next(receiver for receiver in RECEIVERS if receiver.key == "pynetdicom")
    seen = measure(stock, Cell(load, 2, "blast"), tmp_path / "receiver")
    assert (seen.identical, seen.harm, seen.trouble) == (COUNT, "", "")
    assert seen.wall_s > 0 and seen.peak_mb > 1 and seen.p99_ms is not None
    assert not (tmp_path / "receiver").exists()


def test_a_receiver_that_does_not_start_says_why(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_calm", lambda: None)
    broken = Receiver("broken", "broken", "X", lambda *_: ["sh", "-c", "echo no such key >&2; exit 3"])
    assert measure(broken, Cell(load, 1, "blast"), tmp_path / "receiver").trouble == "no such key"
    absent = replace(broken, program="no-such-program-1871")
    assert (
        measure(absent, Cell(load, 1, "blast"), tmp_path / "receiver").trouble
        == "no-such-program-1871 is not installed"
    )


def _measurement(receiver: str, wall_s: float, cpu_s: float = 1.0, **more: str) -> Measurement:
    return Measurement(receiver, "CT", 1, "blast", 100, 10**8, wall_s, cpu_s, 50.0, identical=100, **more)


def test_verdicts_compare_medians() -> None:
    rounds = [
        *(_measurement("overread", wall_s, 0.4) for wall_s in (0.1, 0.2, 0.9)),
        *(_measurement("Orthanc", wall_s) for wall_s in (0.5, 0.6, 0.7)),
        _measurement("storescp +B", 0.1),
    ]
    groups = table.grouped(rounds, ["overread", "Orthanc", "storescp +B"])
    assert [reached for _, reached in table.verdicts(groups)] == [True, True, None]
    assert "durable ≥ 2.0 × Orthanc (CT, 1 association, blast): 3.00 × yes" in dict(table.verdicts(groups))
    line = next(line for line in table.table(groups).splitlines() if line.startswith("  overread"))
    assert "500 [111–1000]" in line and line.endswith("all 100 identical")


def test_the_table_shows_loss_and_failure() -> None:
    rounds = [
        _measurement("overread", 0.1),
        _measurement("overread", 0.1, harm="lost 1 of 100"),
        Measurement("Orthanc", "CT", 1, "blast", 100, 10**8, trouble="Orthanc is not installed"),
    ]
    shown = table.table(table.grouped(rounds, ["overread", "Orthanc"]))
    assert "round 2: lost 1 of 100" in shown and "Orthanc is not installed" in shown
