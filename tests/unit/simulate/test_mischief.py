"""What goes wrong, when and how often; by script and by HTTP."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from overread.cli import main
from overread.domain.errors import ConfigError, Unreachable
from overread.domain.peer import Peer
from overread.simulate.mischief import Fault, Mischief, Mishap, fault_of, read_script
from overread.simulate.pacs import Pacs
from overread.simulate.scanner import Patience, send
from overread.simulate.web import Web


def struck(fault: Fault, occasions: int) -> list[int]:
    """At which of so many occasions it strikes."""
    mischief = Mischief([fault])
    return [n for n in range(1, occasions + 1) if mischief.strikes(fault.kind)]


def test_a_fault_strikes_when_it_was_asked_to() -> None:
    assert struck(Fault(Mishap.LOSE), 3) == [1, 2, 3]
    assert struck(Fault(Mishap.LOSE, every=3), 9) == [3, 6, 9]
    assert struck(Fault(Mishap.LOSE, spare=2, times=2), 9) == [3, 4]
    assert struck(Fault(Mishap.LOSE, after_s=60), 3) == []


def test_a_fault_ends_and_what_stalls_goes_on_when_all_is_taken_back() -> None:
    mischief = Mischief([Fault(Mishap.DOWN, for_s=0.05)])
    assert mischief.is_on(Mishap.DOWN)
    time.sleep(0.1)
    assert not mischief.is_on(Mishap.DOWN)
    began = time.monotonic()
    mischief.stall(Fault(Mishap.STALL_ACCEPTED, seconds=0.05))
    assert 0.05 <= time.monotonic() - began < 5


def test_a_script_is_read_and_what_is_wrong_with_it_is_told(tmp_path: Path) -> None:
    script = tmp_path / "bad-day.toml"
    answer, slow = 'kind = "answer"\nstatus = 0xA700\ntimes = 3\n', 'kind = "slow"\nseconds = 0.5\n'
    script.write_text(f"[[fault]]\n{answer}[[fault]]\n{slow}")
    assert read_script(script) == [Fault(Mishap.ANSWER, 0xA700, times=3), Fault(Mishap.SLOW, seconds=0.5)]
    for values, says in (
        ({"kind": "sulk"}, "it can be refuse, down"),
        ({"kind": "slow", "second": 1}, "a fault has no 'second'"),
        ({"kind": "answer", "status": "often"}, "are numbers"),
        ({"kind": "lose", "every": 0}, "every is at least 1"),
    ):
        with pytest.raises(ConfigError, match=says):
            fault_of(values, "here")
    script.write_text("[fault")
    with pytest.raises(ConfigError, match="cannot be read as a script"):
        read_script(script)
    assert main(["simulate", "pacs", str(tmp_path), "--script", str(script)]) == 1


def test_the_command_plays_its_script_and_takes_faults(tmp_path: Path, study: list[Path]) -> None:
    """As a person starts it, on ports of its own choice."""
    script = tmp_path / "down.toml"
    script.write_text('[[fault]]\nkind = "refuse"\n')
    command = [sys.executable, "-m", "overread", "simulate", "pacs", str(tmp_path / "pacs"), "--script", str(script)]
    command += ["--port", "0", "--web-port", "0", "--peer", "OVERREAD@127.0.0.1:11112"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        (url,) = re.findall(r"http://\S+/faults", second)
        assert [fault["kind"] for fault in httpx.get(url).json()] == ["refuse"]
        port = int(re.findall(r"port (\d+)", first)[0])
        with pytest.raises(Unreachable, match="refused the association"):
            send(study[:1], Peer("PACS", "127.0.0.1", port), patience=Patience(tries=1))
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture
def switchboard(tmp_path: Path) -> Iterator[tuple[Pacs, httpx.Client]]:
    with (
        Pacs(tmp_path / "pacs") as pacs,
        Web(pacs) as web,
        httpx.Client(base_url=f"http://127.0.0.1:{web.port}", timeout=10) as client,
    ):
        yield pacs, client


def test_faults_are_added_told_and_taken_back_by_http(switchboard: tuple[Pacs, httpx.Client]) -> None:
    pacs, client = switchboard
    asked = [{"kind": "answer", "status": "0xA700", "times": 2}, {"kind": "lose", "every": 10}]
    told = client.post("/faults", json=asked).json()
    assert [(one["kind"], one["status"], one["every"], one["struck"]) for one in told] == [
        ("answer", 0xA700, 1, 0),
        ("lose", 0, 10, 0),
    ]
    assert pacs.take(b"", "1.2.3") == 0xA700
    assert client.get("/faults").json()[0]["struck"] == 1
    assert client.get("/objects").json() == {"received": {"1.2.3": 1}, "stored": {}}
    assert client.delete("/faults").json() == []
    refused = client.post("/faults", json={"kind": "sulk"})
    assert (refused.status_code, "it can be" in refused.json()["error"]) == (400, True)
    assert client.post("/faults", content=b"}").status_code == 400
    assert client.get("/elsewhere").status_code == 404


def test_queries_by_qido_and_what_is_not_there(switchboard: tuple[Pacs, httpx.Client], study: list[Path]) -> None:
    pacs, client = switchboard
    for path in study[:4]:
        from pydicom import dcmread

        assert pacs.take(path.read_bytes(), str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)) == 0x0000
    (found,) = client.get("/dicom-web/studies", params={"PatientID": "PHANTOM-*"}).json()
    uid = found["0020000D"]["Value"][0]
    assert len(client.get(f"/dicom-web/studies/{uid}/series").json()) == 2
    assert len(client.get(f"/dicom-web/studies/{uid}/instances", params={"limit": 3}).json()) == 3
    assert client.get("/dicom-web/studies", params={"00100020": "NOBODY"}).json() == []
    assert client.get(f"/dicom-web/studies/{uid}/series/1.2/instances/1.3").status_code == 404
    whole = client.get(f"/dicom-web/studies/{uid}")
    assert whole.headers["content-type"].startswith("multipart/related") and whole.content.count(b"DICM") == 4
