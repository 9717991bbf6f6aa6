"""Results go home to programs that others wrote: Orthanc by every way and proof that it knows, DCMTK's storescp."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from house import Service, dataset_bytes, destination, free_ports, wait_for, write_settings
from orthanc import Archive, program
from outgoing import fill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WAYS: dict[str, dict[str, Any]] = {
    "find": {"proof": "c-find"},
    "get": {"proof": "c-get"},
    "move": {"proof": "c-move", "move_ae_title": "BACK"},
    "commitment": {"proof": "commitment", "commitment_deadline_s": 60.0},
    "qido": {"kind": "stow", "proof": "qido"},
    "wado": {"kind": "stow", "proof": "wado"},
    "storescp": {"proof": "none"},
}


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """DCMTK's storescp, which writes what it gets bit by bit."""
    (port,), folder = free_ports(1), tmp_path / "storescp"
    folder.mkdir()
    command = [program("storescp"), "+B", "+xa", "-od", str(folder), "-aet", "STORESCP", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}, stdout=subprocess.DEVNULL)
    yield port, folder
    process.terminate()
    process.wait(10)


@pytest.fixture
def house(tmp_path: Path, tiny_models: Path, storescp: tuple[int, Path]) -> Iterator[tuple[Service, Service, Archive]]:
    """Who listens and who delivers, and an Orthanc that knows the one as OVERREAD and a second port as BACK."""
    (back,) = free_ports(1)
    folder = tmp_path / "house"
    folder.mkdir()
    listen = Service(write_settings(folder, tiny_models, []), "listen")
    with Archive(tmp_path, {"OVERREAD": listen.port, "BACK": back}) as archive:
        to = []
        for name, more in WAYS.items():
            own = {"url": archive.url} if more.get("kind") == "stow" else {"ae_title": "ORTHANC"}
            port = storescp[0] if name == "storescp" else archive.dimse
            own |= {"ae_title": "STORESCP"} if name == "storescp" else {}
            to.append(destination(name, port, **own, **more, **({"move_port": back} if name == "move" else {})))
        settings = write_settings(folder, tiny_models, to, receive={"port": listen.port})
        yield Service(settings, "listen"), Service(settings, "watch"), archive


def test_orthanc_and_storescp_get_every_result_by_every_way_and_each_proof_is_asked(
    house: tuple[Service, Service, Archive], storescp: tuple[int, Path]
) -> None:
    """Six results by C-STORE and STOW-RS; proven by C-FIND, C-GET, C-MOVE, storage commitment, QIDO-RS and WADO-RS."""
    listen, watch, archive = house
    made = fill(watch.data, 3, 2, dict.fromkeys(WAYS, ("seg", "sr")), pad=40_000)
    try:
        listen.start()
        watch.start()
        settled = "SELECT count(*) FROM delivery WHERE state IN ('VERIFIED', 'ACCEPTED')"
        total = len(made) * len(WAYS)
        wait_for(lambda: watch.rows(settled) == [(total,)], 60, lambda: watch.ask("deliveries", "list").stdout)
        states = watch.rows("SELECT DISTINCT destination, state FROM delivery ORDER BY destination")
        assert dict(states) == {n: "ACCEPTED" if n == "storescp" else "VERIFIED" for n in sorted(WAYS)}
        assert archive.uids() == {result.sop_instance_uid for result in made}
        kept = {dataset_bytes(path) for path in storescp[1].iterdir()}
        assert kept == {dataset_bytes(watch.data / "spool" / result.path) for result in made}
        _swept(watch, archive, made[0].sop_instance_uid)
        checked = watch.ask("check").stdout
        assert all(f"ok        deliver {name}: " in checked for name in WAYS), checked
    finally:
        for one in (watch, listen):
            one.stop()


def _swept(watch: Service, archive: Archive, uid: str) -> None:
    """What vanishes afterwards is found out by a sweep of each destination, and comes back."""
    open_ones = "SELECT count(*) FROM delivery WHERE state IN ('PENDING', 'SENT')"
    for name in ("find", "get", "qido", "wado", "move"):
        archive.forget(uid)
        assert uid not in archive.uids()
        told = watch.ask("deliveries", "sweep", "--destination", name)
        assert "6 asked for, 5 there, 1 lost and sent again" in told.stdout, told
        wait_for(lambda: uid in archive.uids(), 30, "its coming back")
        wait_for(lambda: watch.rows(open_ones) == [(0,)], 30, "its being proven")
    archive.forget(uid)
    watch.ask("deliveries", "sweep", "--destination", "commitment")
    wait_for(lambda: uid in archive.uids(), 30, "its coming back by storage commitment")


def test_a_person_sees_dead_letters_and_has_them_tried_again(
    service: Callable[..., Service], tmp_path: Path, storescp: tuple[int, Path]
) -> None:
    """A PACS that does not know us for good, and one that takes everything: list, retry and drop."""
    from overread.simulate.pacs import Pacs

    with Pacs(tmp_path / "pacs", "STRICT") as pacs:
        pacs.status = 0x0124
        watch = service([destination("strict", pacs.port), destination("storescp", storescp[0], proof="none")], "watch")
        made = fill(watch.data, 1, 2, {"strict": ("seg", "sr"), "storescp": ("seg", "sr")})
        watch.start()
        dead = "SELECT count(*) FROM delivery WHERE state = 'FAILED'"
        wait_for(lambda: watch.rows(dead) == [(2,)], 30, watch.tail)
        told = watch.ask("deliveries", "list", "--destination", "strict", "--state", "failed").stdout
        assert told.count("configuration fault: not authorised") == 2
        wait_for(lambda: watch.rows("SELECT state FROM job") == [("FAILED",)], 20, "the job's end")
        assert "configuration fault" in watch.ask("explain", made[0].study_uid).stdout
        first = int(told.split()[0])
        assert "is not sent to strict" in watch.ask("deliveries", "drop", str(first)).stdout
        pacs.status = 0x0000
        told = watch.ask("deliveries", "retry", "--all", "--destination", "strict")
        assert "job 1 is DELIVERING again" in told.stdout, told
        wait_for(lambda: watch.rows("SELECT state FROM job") == [("COMPLETED",)], 20, "the job's second end")
        assert sum(pacs.stored.values()) == 1
        watch.stop()
