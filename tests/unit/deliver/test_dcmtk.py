"""Delivery to DCMTK's storescp, another implementation than ours."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from handed import send
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from overread.deliver.dimse import Calling, DimseDestination
from overread.deliver.proofs import unasked
from overread.domain.delivery import Outcome
from overread.domain.errors import Unreachable
from overread.domain.peer import Peer
from overread.domain.result import Result


def dcmtk(tool: str) -> str:
    """The path of a DCMTK tool; pynetdicom installs others under the same names."""
    for folder in os.get_exec_path():
        found = shutil.which(tool, path=folder)
        if found and b"dcmtk" in subprocess.run([found, "--version"], capture_output=True, check=False).stdout.lower():
            return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"DCMTK's {tool} is not installed")
    pytest.skip(f"DCMTK's {tool} is not installed")


@pytest.fixture
def storescp(tmp_path: Path, closed_port: int) -> Iterator[tuple[Peer, Path]]:
    """A storescp that writes what it gets bit by bit into a folder."""
    folder = tmp_path / "kept"
    folder.mkdir()
    command = [dcmtk("storescp"), "+B", "+xa", "-od", str(folder), "-aet", "DCMTK", str(closed_port)]
    process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, stdout=subprocess.DEVNULL)
    try:
        _wait_for(closed_port)
        yield Peer("DCMTK", "127.0.0.1", closed_port), folder
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "storescp does not listen"
            time.sleep(0.05)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_dcmtk_keeps_the_bytes_that_were_sent(
    storescp: tuple[Peer, Path], make_result: Callable[..., tuple[Result, Path]], syntax: str
) -> None:
    peer, folder = storescp
    there = DimseDestination("dcmtk", Calling(peer, "OVERREAD", timeout_s=10.0), witness=unasked)
    assert "answers" in there.check()
    result, path = make_result(1, syntax=syntax, pad=200_000)
    assert [told.outcome for told in send(there, [(result, path)]).values()] == [Outcome.TAKEN]
    (kept,) = folder.iterdir()
    assert _data_set(kept) == _data_set(path)


def test_dcmtk_refusing_associations_is_tried_later(
    tmp_path: Path, closed_port: int, make_result: Callable[..., tuple[Result, Path]]
) -> None:
    process = subprocess.Popen([dcmtk("storescp"), "--refuse", "-od", str(tmp_path), str(closed_port)])
    try:
        _wait_for(closed_port)
        with pytest.raises(Unreachable, match="refused the association"):
            peer = Peer("DCMTK", "127.0.0.1", closed_port)
            send(DimseDestination("dcmtk", Calling(peer, "OVERREAD"), witness=unasked), [make_result(1)])
    finally:
        process.terminate()
        process.wait(10)


def _data_set(path: Path) -> bytes:
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]
