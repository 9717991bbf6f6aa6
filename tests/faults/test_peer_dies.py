"""A peer that dies, and a listener that comes back, hold nobody up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from house import echo, environment, free_ports, small_study, wait_for
from pydicom import dcmread

from overread.domain.peer import Peer
from overread.simulate.scanner import Patience, send
from overread.spool import Spool


@pytest.mark.slow
def test_a_peer_killed_while_it_takes_objects_is_noticed_at_once(tmp_path: Path) -> None:
    """Not after the time-out of a message (pynetdicom's reactor may swallow the news): eight kills at other moments."""
    study = small_study(tmp_path, "killed")
    for n in range(8):
        (port,), folder = free_ports(1), tmp_path / f"pacs-{n}"
        command = [sys.executable, "-m", "overread", "simulate", "pacs", str(folder), "--port", str(port)]
        with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as pacs:
            peer = Peer("PACS", "127.0.0.1", port)
            wait_for(lambda peer=peer: echo(peer), 60, "the PACS")
            killer = threading.Thread(target=_kill_once_it_holds_something, args=(pacs, folder, 0.002 * n))
            killer.start()
            started = time.monotonic()
            sent = send(study.files, peer, patience=Patience(1, timeout_s=30))
            took = time.monotonic() - started
            killer.join(30)
        assert sent.failed
        assert took < 15, f"kill {n} was noticed after {took:.1f} s"


def _kill_once_it_holds_something(pacs: subprocess.Popen[bytes], folder: Path, later_s: float) -> None:
    deadline = time.monotonic() + 30
    while not any(folder.rglob("*.dcm")) and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(later_s)
    pacs.kill()


def test_a_listener_that_starts_again_takes_no_result_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It clears what was half received while a worker is in the middle of keeping a result."""
    made, sync, spool = small_study(tmp_path, "result").files[0], os.fsync, Spool(tmp_path / "spool")
    listener, restarted = Spool(tmp_path / "spool"), []

    def listener_starts_again(descriptor: int) -> None:
        restarted.append(listener.clear_incoming())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", listener_starts_again)
    stored = spool.keep_result(1, made)
    assert restarted
    assert dcmread(spool.absolute(stored.path)).SOPInstanceUID == dcmread(made).SOPInstanceUID
