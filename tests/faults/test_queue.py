"""The whole service with a model that misbehaves: dead letters with their evidence, cancelling, STAT, and a backlog."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import house
import mischief
import pytest
from house import Service, Study, wait_for

from overread.domain.peer import Peer
from overread.simulate.scanner import Patience, send

pytestmark = [pytest.mark.slow, pytest.mark.alone]

BACKLOG, OF_THEM_STAT = 200, 50
SECONDS_BETWEEN_KILLS = 2.0
Make = Callable[..., Service]
MB = 1 << 20


@pytest.fixture
def make(
    tmp_path: Path, service: Make, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Service, Path]]]:
    """A service whose model is the misbehaving one, which brings its results into a folder."""
    engine, models = mischief.install(tmp_path / "engine"), tmp_path / "models"
    mischief.model(models)
    before = house.environment
    path = f"{house.ROOT / 'service'}{os.pathsep}{engine}"
    monkeypatch.setattr(house, "environment", lambda: {**before(), "PYTHONPATH": path})

    def build(slots: int = 1, results: Sequence[str] = (), **schedule: object) -> tuple[Service, Path]:
        out = tmp_path / "out"
        out.mkdir()
        to = {"name": "out", "kind": "folder", "folder": str(out), "first_retry_s": 0.2, "longest_retry_s": 1.0}
        to |= {"results": list(results)} if results else {}
        called = [{"ae_title": "STAT", "priority": "STAT", "deadline_s": 5.0, "models": ["mischief"]}]
        called += [{"ae_title": "OVERREAD", "models": ["mischief"]}, {"ae_title": "LARGE", "models": ["large"]}]
        made = service([to], models=models, schedule={"slots": slots, "cpu_threads": 1, "retry_s": 0.2, **schedule},
                       receive={"called": called, "port": house.free_ports(1)[0], "min_free_mb": 10})  # fmt: skip
        return made, out

    yield build


def scan(service: Service, study: Study, title: str = "OVERREAD") -> None:
    sent = send(list(study.files), Peer(title, "127.0.0.1", service.port), calling_ae="SCANNER", patience=Patience(5))
    assert sent.stored == len(study.files)


def events_of(service: Service, study: Study) -> list[tuple[str, float]]:
    query = "SELECT e.event, e.at FROM job_event e JOIN job j ON j.id = e.job_id WHERE j.study_uid = ? ORDER BY e.id"
    return [(event, at) for event, at in service.rows(query, study.uid)]


def know(service: Service, models: Path, **takes_mb: int) -> None:
    """The service has read with models before, and knows what they take; one that is new is installed."""
    for name in set(takes_mb) - {"mischief"}:
        mischief.model(models, name)
    table = {f"{name} 1.0 cpu": {"host_bytes": mb * MB, "device_bytes": 0} for name, mb in takes_mb.items()}
    (service.data / "workers").mkdir(parents=True)
    (service.data / "workers" / "footprints.json").write_text(json.dumps(table))


def when(service: Service, study: Study, event: str) -> float:
    """When it happened last, or 0."""
    return max((at for name, at in events_of(service, study) if name == event), default=0.0)


def test_a_job_that_takes_down_three_processes_is_a_dead_letter_with_its_evidence(
    make: Callable[..., tuple[Service, Path]], tmp_path: Path
) -> None:
    """Its card would allow ten attempts. Another study is read meanwhile."""
    service, _ = make()
    service.start()
    bad = mischief.study(tmp_path / "studies", "segfault", "bad")
    good = mischief.study(tmp_path / "studies", "well", "good")
    scan(service, bad)
    scan(service, good)
    service.wait_states(good.uid, ["COMPLETED"])
    service.wait_states(bad.uid, ["FAILED"])
    ((reason, kills),) = service.rows("SELECT reason, kills FROM job WHERE study_uid = ?", bad.uid)
    assert "ended by SIGSEGV; it has taken down 3 processes" in reason
    assert kills == 3
    told = service.ask("explain", bad.uid).stdout
    for attempt in (1, 2, 3):
        assert f"attempt {attempt}: its process was ended by SIGSEGV, " in told
    assert " MB at most" in told
    assert "it said last: about to follow a null pointer Fatal Python error: Segmentation fault" in told
    assert "SIGSEGV" in service.ask("status").stdout
    page = service.page("work", "metrics")[1]
    assert 'overread_worker_deaths_total{model="mischief",reason="crash"} 3.0' in page
    service.stop()


def test_cancel_works_in_every_state_within_a_second(
    make: Callable[..., tuple[Service, Path]], tmp_path: Path
) -> None:
    service, _ = make()
    service.start()
    studies = {name: mischief.study(tmp_path / "studies", "slow", name) for name in ("running", "waiting", "arriving")}
    scan(service, studies["running"])
    wait_for(lambda: service.states(studies["running"].uid) == ["RUNNING"], 30)
    scan(service, studies["waiting"])
    wait_for(lambda: service.states(studies["waiting"].uid) == ["SCHEDULED"], 30)
    ((waiting, _),) = service.jobs(studies["waiting"].uid)
    ((running, _),) = service.jobs(studies["running"].uid)
    pids = service.model_pids()
    said = service.ask("cancel", str(waiting), str(running))
    asked = time.time()
    assert said.returncode == 0, said.stderr
    assert f"job {running} was RUNNING and is CANCELED" in said.stdout
    assert f"job {waiting} was SCHEDULED and is CANCELED" in said.stdout
    # The slot is free within a second: the next study begins, with the process that the other one left.
    well = mischief.study(tmp_path / "studies", "well", "well")
    scan(service, well)
    service.wait_states(well.uid, ["COMPLETED"], 30)
    assert set(pids) <= set(service.model_pids())
    planned, claimed = when(service, well, "plan"), when(service, well, "claim")
    assert claimed - max(planned, asked) < 1.0
    scan(service, studies["arriving"])
    said = service.ask("cancel", "--study", studies["arriving"].uid)
    assert said.returncode == 0, said.stderr
    state = "SELECT state FROM study WHERE uid = ?"
    wait_for(lambda: service.rows(state, studies["arriving"].uid) == [("COMPLETE",)], 30)
    time.sleep(1.5)
    assert service.states(studies["arriving"].uid) in ([], ["CANCELED"])
    assert service.ask("cancel", str(running)).returncode == 1
    assert service.ask("cancel").returncode == 2
    assert service.states(studies["running"].uid) == ["CANCELED"]
    page = service.page("work", "metrics")[1]
    assert 'overread_model_processes{device="cpu",model="mischief"} 2.0' in page
    assert 'overread_device_busy_ratio{device="cpu"}' in page
    service.stop()


def test_cancelled_deliveries_do_not_leave(make: Callable[..., tuple[Service, Path]], tmp_path: Path) -> None:
    """A destination that is away keeps a job in DELIVERING; canceled, nothing of it is sent any more."""
    service, out = make()
    out.rmdir()
    service.start()
    study = mischief.study(tmp_path / "studies", "well", "well")
    scan(service, study)
    wait_for(lambda: service.states(study.uid) == ["DELIVERING"], 60, service.tail)
    ((job, _),) = service.jobs(study.uid)
    said = service.ask("cancel", str(job)).stdout
    assert f"job {job} was DELIVERING and is CANCELED; 2 of its results will not be sent" in said
    out.mkdir()
    time.sleep(3)
    assert not list(out.rglob("*.dcm"))
    assert service.states(study.uid) == ["CANCELED"]
    service.stop()


def stat(service: Service, tmp_path: Path, name: str) -> float:
    """Seconds that a STAT study took, from its plan until it was read."""
    study = mischief.study(tmp_path / "studies", "well", name)
    scan(service, study, "STAT")
    service.wait_states(study.uid, ["COMPLETED"])
    return when(service, study, "read") - when(service, study, "plan")


def test_a_stat_study_does_not_wait_for_a_long_routine_one(
    make: Callable[..., tuple[Service, Path]], tmp_path: Path
) -> None:
    """One slot, which a long reading has. STAT: no later than alone, and a window batch, and two seconds."""
    service, _ = make(slots=1)
    service.start()
    wait_for(lambda: len(service.model_pids()) == 2, 60, "two warm processes")
    own = stat(service, tmp_path, "alone")
    long = mischief.study(tmp_path / "studies", "slow", "long")
    scan(service, long)
    wait_for(lambda: service.states(long.uid) == ["RUNNING"], 30)
    took = stat(service, tmp_path, "urgent")
    assert service.states(long.uid) == ["RUNNING"], "the long one should have been at work still"
    assert took <= own + mischief.WINDOW_S + 2.0
    service.wait_states(long.uid, ["COMPLETED"])
    assert [event for event, _ in events_of(service, long)].count("claim") == 1, "it went on where it was"
    service.stop()


def test_a_stat_study_does_not_wait_for_memory_that_a_long_routine_reading_has(
    make: Callable[..., tuple[Service, Path]], tmp_path: Path
) -> None:
    """Two slots, and memory for one reading: the routine one makes way, and is read again; it is no failed attempt."""
    service, _ = make(slots=2, memory_gb=0.4)
    know(service, tmp_path / "models", mischief=300)
    service.start()
    own = stat(service, tmp_path, "alone")
    long = mischief.study(tmp_path / "studies", "slow", "long")
    scan(service, long)
    wait_for(lambda: service.rows("SELECT 1 FROM job WHERE study_uid = ? AND progress > 0", long.uid), 30)
    took = stat(service, tmp_path, "urgent")
    assert took <= own + mischief.WINDOW_S + 2.0
    service.wait_states(long.uid, ["COMPLETED"], 60)
    assert [event for event, _ in events_of(service, long)] == ["plan", "claim", "lost", "claim", "read", "verified"]
    assert service.rows("SELECT attempts FROM job WHERE study_uid = ?", long.uid) == [(0,)]
    service.stop()


def test_a_large_model_does_not_starve_behind_small_ones(
    make: Callable[..., tuple[Service, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones always leave too little memory for it; once it has waited too long, room is saved for it."""
    monkeypatch.setenv("MISCHIEF_WINDOWS", "8")
    one_reading = 8 * mischief.WINDOW_S
    service, _ = make(slots=2, memory_gb=0.4, longest_wait_s=3.0, express="off")
    know(service, tmp_path / "models", mischief=100, large=360)
    service.start()
    small = [mischief.study(tmp_path / "studies", "slow", f"small {n}") for n in range(16)]
    scan(service, small[0])
    wait_for(lambda: service.states(small[0].uid) == ["RUNNING"], 30)
    large = mischief.study(tmp_path / "studies", "well", "large")
    scan(service, large, "LARGE")
    time.sleep(one_reading / 2)  # so that the two slots never end together
    scan(service, Study("more", tuple(file for study in small[1:] for file in study.files)))
    service.wait_states(large.uid, ["COMPLETED"], 60)
    waited = when(service, large, "read") - when(service, large, "plan")
    assert service.rows("SELECT COUNT(*) FROM job WHERE state = 'SCHEDULED'")[0][0] > 0, "small ones wait still"
    assert waited < 3.0 + 3 * (one_reading + 1.0), "the longest wait, two readings of a slot, the end of the other's"
    service.stop()


def test_a_backlog_is_drained_while_workers_are_killed(
    make: Callable[..., tuple[Service, Path]], tmp_path: Path
) -> None:
    """200 studies, a quarter of them STAT; a worker killed every two seconds: every job ends once, the urgent first."""
    service, out = make(slots=4, results=["seg"], express="off")
    roles = {role: Service(service.config, role) for role in house.ROLES}
    studies = [mischief.study(tmp_path / "studies", "busy", f"{n:03d}") for n in range(BACKLOG)]
    random.Random(6).shuffle(studies)
    stat = {study.uid for study in studies[:OF_THEM_STAT]}
    try:
        roles["listen"].start()
        roles["watch"].start()
        for title, part in (("OVERREAD", studies[OF_THEM_STAT:]), ("STAT", studies[:OF_THEM_STAT])):
            scan(service, Study(title, tuple(file for study in part for file in study.files)), title)
        count = "SELECT COUNT(*) FROM job WHERE state = 'SCHEDULED'"
        wait_for(lambda: service.rows(count) == [(BACKLOG,)], 60, "the planning of all")
        roles["work"].start()
        kills, last = 0, time.monotonic()
        while not (done := service.rows("SELECT COUNT(*) FROM job WHERE state = 'COMPLETED'") == [(BACKLOG,)]):
            if time.monotonic() - last > SECONDS_BETWEEN_KILLS:
                last = time.monotonic()
                victims = house.models_below(roles["work"].pid)
                if victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(random.Random(kills).choice(victims), signal.SIGKILL)
                    kills += 1
            assert not service.rows("SELECT reason FROM job WHERE state = 'FAILED'")
            assert time.monotonic() - last < 60
            time.sleep(0.1)
        assert done
        assert kills >= 3
    finally:
        for role in roles.values():
            role.end()
    ended = service.rows("SELECT job_id, COUNT(*) FROM job_event WHERE event = 'read' GROUP BY job_id")
    assert Counter(n for _, n in ended) == {1: BACKLOG}
    files = list(out.rglob("*.dcm"))
    results = service.rows("SELECT COUNT(DISTINCT sop_instance_uid) FROM result")
    assert results == [(len(files),)]
    assert len(files) == BACKLOG
    query = "SELECT j.study_uid FROM job_event e JOIN job j ON j.id = e.job_id WHERE e.event = 'claim' ORDER BY e.id"
    claims = service.rows(query)
    first = [uid in stat for (uid,) in claims[:OF_THEM_STAT]]
    assert sum(first) >= 0.9 * OF_THEM_STAT, "STAT goes first; what was killed is tried again a little later"
    assert service.rows("SELECT COUNT(*) FROM death WHERE signal = 'SIGKILL'")[0][0] >= 1
