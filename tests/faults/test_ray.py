"""Past one machine: two nodes of a Ray cluster, PostgreSQL as ledger, one node killed while it reads."""

from __future__ import annotations

import gc
import importlib.util
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import house
import mischief
import pytest
from sqlalchemy import create_engine, text

from overread import wiring
from overread.domain.errors import ConfigError
from overread.domain.events import Event
from overread.ledger import arrivals
from overread.ledger.arrivals import Arrival
from overread.route.router import route_complete_studies
from overread.schedule.shift import Shift, Terms
from overread.settings import Deliver, Receive, Schedule, Settings
from overread.spool.header import read_file
from overread.wiring.executors import executor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    # Ray's own, while it is imported and when it is shut down.
    *(pytest.mark.filterwarnings(f"ignore::{name}") for name in ("DeprecationWarning", "FutureWarning")),
    *(pytest.mark.filterwarnings(f"ignore::{name}") for name in ("ResourceWarning", "UserWarning")),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STUDIES = 10
NODE = {"num_cpus": 2, "object_store_memory": 100 << 20}


def _contract() -> Any:
    path = Path(__file__).resolve().parents[1] / "contract" / "conftest.py"
    spec = importlib.util.spec_from_file_location("contract_of_the_ledger", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


postgres = _contract().postgres


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with two places each, which find the package and the engine."""
    try:
        import ray  # noqa: F401
        from ray.cluster_utils import Cluster
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail("ray must be there in continuous integration (pip install 'overread[ray]')")
        pytest.skip("ray is not installed (pip install 'overread[ray]')")
    engine = mischief.install(tmp_path / "engine")
    monkeypatch.setenv("PYTHONPATH", f"{house.ROOT / 'service'}{os.pathsep}{engine}")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("MISCHIEF_WINDOWS", "24")
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield made
    made.shutdown()
    gc.collect()  # Ray leaves its processes to the collector, which warns of them


def test_without_postgresql_there_is_no_cluster() -> None:
    with pytest.raises(ConfigError, match='"ray" needs PostgreSQL as ledger'):
        executor(Settings(schedule=Schedule(executor="ray")), None, (), lambda _: None)  # type: ignore[arg-type]


def test_a_node_that_is_killed_costs_no_study(cluster: Any, postgres: str, tmp_path: Path) -> None:
    """Every study ends once, those of the killed node on the other one."""
    server = create_engine(postgres.format("postgres"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text("CREATE DATABASE of_the_cluster"))
    server.dispose()
    mischief.model(tmp_path / "models")
    settings = Settings(
        data=str(tmp_path / "data"),
        ledger=postgres.format("of_the_cluster"),
        models=(str(tmp_path / "models"),),
        receive=Receive(durability="none"),
        schedule=Schedule(executor="ray", ray_address=cluster.address, device="cpu", slots=4, cpu_threads=1),
        deliver=(Deliver("out", kind="folder", folder=str(tmp_path / "out"), results=("seg",)),),
    )
    books, models = wiring.ledger(settings), wiring.cards(settings)
    _came(settings, books, tmp_path)
    assert route_complete_studies(books, models, lambda _: None) == STUDIES
    events: list[Event] = []
    place = executor(settings, books, models, events.append)  # which speaks to the first node
    other = cluster.add_node(**NODE)
    cards, kinds = {card.name: card for card in models}, wiring.result_kinds(settings)
    shift = Shift(books, cards, place, kinds, events.append, terms=Terms("cluster", 30.0, 0.2))
    try:
        place.warm(models, 4)
        shift.start(4)
        _until(lambda: _reading(books) >= 3, books, events)
        cluster.remove_node(other, allow_graceful=False)
        _until(lambda: _states(books)["DELIVERING"] == STUDIES, books, events)
    finally:
        shift.stop(10, place.close)
    with books.read() as session:
        query = text("SELECT job_id, COUNT(*) FROM job_event WHERE event = 'read' GROUP BY job_id")
        assert Counter(count for _, count in session.connection().execute(query)) == {1: STUDIES}
        lost = session.connection().execute(text("SELECT COUNT(*) FROM job_event WHERE why LIKE 'the node%'")).scalar()
        made = session.connection().execute(text("SELECT path FROM result")).scalars().all()
    assert lost, "nothing ran on the node that was killed"
    assert len(set(made)) == STUDIES
    assert all((wiring.spool(settings).absolute(path)).exists() for path in made)
    books.close()


def _came(settings: Settings, books: Any, folder: Path) -> None:
    """Studies that are complete, as the listener and the watch leave them."""
    spool = wiring.spool(settings)
    for n in range(STUDIES):
        study = mischief.study(folder / "studies", "slow" if n < 4 else "busy", f"{n:02d}")
        arrived = []
        for path in study.files:
            instance = read_file(path)
            stored = spool.adopt(path, instance)
            arrived.append(Arrival(replace(instance.stored(stored.path, stored.digest, "CT")), 1, time.time()))
        arrivals.record(books, arrived)
    for waiting in arrivals.waiting(books):
        assert arrivals.complete(books, waiting, time.time()) == 1


def _states(books: Any) -> Counter[str]:
    with books.read() as session:
        return Counter(session.connection().execute(text("SELECT state FROM job")).scalars().all())


def _reading(books: Any) -> int:
    with books.read() as session:
        query = text("SELECT COUNT(*) FROM job WHERE state = 'RUNNING' AND progress > 0.1")
        return int(session.connection().execute(query).scalar() or 0)


def _until(true: Any, books: Any, events: list[Event], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, (_states(books), events[-5:])
        time.sleep(0.1)
