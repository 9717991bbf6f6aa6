"""The ledger keeps its word on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlmodel import SQLModel, col, select

from overread.console.words import explain
from overread.domain import canary
from overread.domain.called import CalledAE, errand
from overread.domain.errors import ConfigError, Refused, Unreachable
from overread.domain.job import Job, JobEvent, JobState
from overread.domain.result import DeliveryState, Result
from overread.domain.study import Instance
from overread.ledger import Ledger, arrivals, canceled, deliveries, destinations, jobs, letters, open_ledger, views
from overread.ledger.arrivals import Arrival, Place, Recorded
from overread.ledger.deliveries import Claim, Delivery, Mark
from overread.ledger.jobs import Decision, Move, Plan
from overread.ledger.replaced import superseded
from overread.ledger.store import HEAD
from overread.ledger.tables import DecisionRow, DeliveryRow, EventRow, InstanceRow, JobRow, StudyRow
from overread.ledger.views import StudyStory

STUDY = "1.2"
Headers = Callable[..., list[Instance]]
KINDS = {"pacs": ("seg", "sr"), "archive": ("seg",)}


# ------------------------------------------------------------------------------------------------------- migrations


def test_migrations_make_the_schema_and_do_nothing_the_second_time(url: str) -> None:
    for _ in range(2):
        open_ledger(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]
        assert set(inspect(connection).get_table_names()) == set(SQLModel.metadata.tables) | {"alembic_version"}
    engine.dispose()


def test_the_migrated_schema_is_the_one_the_tables_describe(url: str) -> None:
    open_ledger(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


def test_a_ledger_of_the_first_version_keeps_what_is_in_it(url: str) -> None:
    """Rows that 0001 has written are read by this version, and what they stand for goes on."""
    write_first_version(url)
    ledger = open_ledger(url)
    row = study(ledger)
    assert (row.uid, row.state, row.instances, row.conflicts, row.duplicates) == (STUDY, "COMPLETE", 2, 1, 0)
    assert [(r.sop_instance_uid, r.path, r.header["modality"]) for r in instance_rows(ledger)] == [
        ("1.2.3", "instances/1.2.3", "CT"),
        ("1.2.4", "instances/1.2.4", "CT"),
    ]
    assert job_rows(ledger) == [("lungs", "input", "COMPLETED")]
    assert len(told(ledger).jobs[0].events) == 1
    aside = Arrival(replace(made_of(ledger)[0], digest="old", path="instances/1.2.3-old"), 1, 5.0, found=True)
    assert arrivals.record(ledger, [aside]).conflicts == 1
    assert study(ledger).conflicts == 1  # it was counted before, now it has its line
    again = [Arrival(replace(i, study_uid="9.9"), 1, 20.0) for i in made_of(ledger)]
    assert arrivals.record(ledger, again).fresh == 2
    ledger.close()


def write_first_version(url: str) -> None:
    from overread.ledger import store

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "HEAD", "0001")
        open_ledger(url).close()
    header = json.dumps(Instance("UID", "1.2.840", "1.2.8", STUDY, modality="CT").to_json())
    engine = create_engine(url)
    with engine.begin() as connection:
        run = connection.exec_driver_sql
        run(f"INSERT INTO study VALUES ('{STUDY}', 'COMPLETE', 1, 2, 1, 'CT', 1.0, 10.0, 11.0, 1, NULL)")
        for uid in ("1.2.4", "1.2.3"):
            run(
                f"INSERT INTO instance VALUES ('{uid}', '{STUDY}', '1.2.8', 'd', 'instances/{uid}', 1, 10.0, "
                f"'{header.replace('UID', uid)}')"
            )
        run(
            f"INSERT INTO job VALUES (1, '{STUDY}', '1.2.8', 'lungs', '1', 'input', 1, 'COMPLETED', 0, 0, 0.0, 0.0, "
            "'', 1.0, '', 12.0, 13.0, 10.0)"
        )
        run("INSERT INTO job_event VALUES (1, 1, 12.0, 'router', 'plan', '', 'SCHEDULED', '')")
    engine.dispose()


def test_the_migrated_schema_has_the_keys_that_the_tables_describe(url: str) -> None:
    """Which the comparison above does not look at."""
    open_ledger(url).close()
    engine = create_engine(url)
    with engine.connect() as connection:
        found = inspect(connection)
        assert found.get_pk_constraint("instance")["constrained_columns"] == ["study_uid", "sop_instance_uid"]
        (unique,) = found.get_unique_constraints("job")
        assert unique["column_names"] == ["study_uid", "model", "model_version", "input_digest", "revision"]
        assert ["path"] in [index["column_names"] for index in found.get_indexes("instance")]
    engine.dispose()


def test_three_processes_may_migrate_at_once(url: str) -> None:
    code = "import sys; from overread.ledger import open_ledger; open_ledger(sys.argv[1]).answer()"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    open_ledger(url).close()


def test_a_ledger_of_a_newer_version_is_left_alone(url: str) -> None:
    open_ledger(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigError, match="written by a newer overread"):
        open_ledger(url)


@pytest.mark.parametrize("url", ["postgresql+nothing://x/y", "no url", "oracle+nodriver://x"])
def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="use sqlite:///PATH or postgresql"):
        open_ledger(url)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/at/all.sqlite", "postgresql+psycopg://x@127.0.0.1:1/y"])
def test_a_database_that_does_not_answer_is_unreachable(url: str) -> None:
    with pytest.raises(Unreachable, match="the ledger cannot be opened"):
        open_ledger(url)


def test_a_write_that_raises_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.write() as session:
        session.add(StudyRow(uid=STUDY))
        session.flush()
        raise ZeroDivisionError
    assert views.recent_studies(ledger, 9) == []


def test_a_reader_sees_one_consistent_state(ledger: Ledger, ct_headers: Headers) -> None:
    with ledger.read() as session:
        assert session.exec(select(StudyRow)).all() == []
        arrivals.record(ledger, came(ct_headers(3), 10))
        assert session.exec(select(StudyRow)).all() == []


# --------------------------------------------------------------------------------------------------------- arrivals


def came(instances: Sequence[Instance], at: float, *, found: bool = False) -> list[Arrival]:
    named = [replace(i, study_uid=STUDY, path=f"instances/{i.sop_instance_uid}-{i.digest}") for i in instances]
    return [Arrival(i, 100, at, found) for i in named]


def study(ledger: Ledger) -> StudyRow:
    (row,) = views.recent_studies(ledger, 9)
    return row


def rows_of_studies(ledger: Ledger) -> list[StudyRow]:
    return sorted(views.recent_studies(ledger, 9), key=lambda row: row.uid)


def instance_rows(ledger: Ledger) -> list[InstanceRow]:
    with ledger.read() as session:
        return list(session.exec(select(InstanceRow).order_by(col(InstanceRow.path))).all())


def digest_of(ledger: Ledger, instance: Instance) -> str:
    (found,) = (r for r in instance_rows(ledger) if r.sop_instance_uid == instance.sop_instance_uid)
    return found.digest


def told(ledger: Ledger) -> StudyStory:
    story = views.story(ledger, STUDY)
    assert story is not None
    return story


def finish(ledger: Ledger, at: float = 100.0) -> int | None:
    (waiting,) = arrivals.waiting(ledger)
    return arrivals.complete(ledger, waiting, at)


def test_new_instances_make_a_study_that_receives(ledger: Ledger, ct_headers: Headers) -> None:
    mixed = [*ct_headers(3), *ct_headers(2, series=3, modality="PT"), *ct_headers(1, series=4, modality="")]
    assert arrivals.record(ledger, came(mixed, 10)) == Recorded(fresh=6)
    row = study(ledger)
    assert (row.state, row.revision, row.instances, row.conflicts, row.modalities) == ("RECEIVING", 1, 6, 0, "CT,PT")
    (waiting,) = arrivals.waiting(ledger)
    assert (waiting.last_at, waiting.modalities, waiting.instances) == (10, ("CT", "PT"), 6)


def test_an_instance_comes_back_as_it_was(ledger: Ledger, ct_headers: Headers) -> None:
    made = came(ct_headers(3), 10)
    arrivals.record(ledger, made)
    found = arrivals.series_instances(ledger, STUDY, made[0].instance.series_uid)
    assert found == [a.instance for a in made]
    assert arrivals.series_instances(ledger, STUDY, "9.9") == []
    assert arrivals.known_paths(ledger) == {a.instance.path for a in made}


def test_several_studies_may_come_in_one_batch(ledger: Ledger, ct_headers: Headers) -> None:
    batch = came(ct_headers(4), 10)
    batch[1:3] = [replace(a, instance=replace(a.instance, study_uid="9.9")) for a in batch[1:3]]
    arrivals.record(ledger, batch)
    assert {row.uid: row.instances for row in views.recent_studies(ledger, 9)} == {STUDY: 2, "9.9": 2}


def test_a_duplicate_changes_nothing_but_its_count_and_the_time(ledger: Ledger, ct_headers: Headers) -> None:
    arrivals.record(ledger, came(ct_headers(3), 10))
    before = instance_rows(ledger)
    assert arrivals.record(ledger, came(ct_headers(3), 20)) == Recorded(duplicates=3)
    row = study(ledger)
    assert (row.instances, row.conflicts, row.duplicates, row.revision, row.last_at) == (3, 0, 3, 1, 20)
    finish(ledger)
    assert arrivals.record(ledger, came(ct_headers(3), 30)) == Recorded(duplicates=3)
    row = study(ledger)
    assert (row.state, row.last_at, row.duplicates) == ("COMPLETE", 20, 6)
    assert instance_rows(ledger) == before


def test_what_is_found_again_is_no_duplicate(ledger: Ledger, ct_headers: Headers) -> None:
    arrivals.record(ledger, came(ct_headers(3), 10))
    assert arrivals.record(ledger, came(ct_headers(3), 20, found=True)) == Recorded()
    assert study(ledger).duplicates == 0


def test_other_content_under_a_known_uid_is_a_conflict_and_the_newest_is_current(
    ledger: Ledger, ct_headers: Headers
) -> None:
    first, *others = ct_headers(3)
    arrivals.record(ledger, came([first, *others], 10))
    changed = replace(first, digest="other")
    assert arrivals.record(ledger, came([changed], 20)) == Recorded(conflicts=1, disputed=(STUDY,))
    assert (study(ledger).instances, study(ledger).conflicts) == (3, 1)
    assert digest_of(ledger, first) == "other"
    assert arrivals.record(ledger, came([first], 10, found=True)) == Recorded()
    assert digest_of(ledger, first) == "other"
    assert (study(ledger).conflicts, len(told(ledger).conflicts)) == (1, 1)


def test_a_conflict_says_what_came_and_what_it_replaced(ledger: Ledger, ct_headers: Headers) -> None:
    first = ct_headers(1, calling_ae="CT1")[0]
    other = replace(first, digest="other", calling_ae="ROUTER")
    arrivals.record(ledger, came([first], 10))
    arrivals.record(ledger, came([other], 20))
    (row,) = told(ledger).conflicts
    assert (row.study_uid, row.sop_instance_uid, row.at, row.calling_ae) == (
        STUDY,
        first.sop_instance_uid,
        20,
        "ROUTER",
    )
    paths = [a.instance.path for a in came([first, other], 0)]
    assert [(row.path, row.digest), (row.new_path, row.new_digest)] == [(paths[0], first.digest), (paths[1], "other")]


def test_a_study_with_many_conflicts_is_explained_by_the_most_recent(ledger: Ledger, ct_headers: Headers) -> None:
    first = ct_headers(1, calling_ae="CT1")[0]
    arrivals.record(ledger, [a for n in range(26) for a in came([replace(first, digest=f"content {n}")], 10.0 + n)])
    arrivals.record(ledger, came([replace(first, digest="content 25")], 40))
    lines = list(explain(told(ledger)))
    assert lines[2:4] == [
        "  1 duplicate acknowledged",
        "  Other content came under a known SOP Instance UID (25×); the newest is current:",
    ]
    path = f"instances/{first.sop_instance_uid}-content"
    assert lines[4] == (
        f"    1970-01-01 00:00:35Z  {first.sop_instance_uid} from CT1: {path} 25 is current since then, "
        f"{path} 24 is kept beside it"
    )
    assert lines[24] == "    and 5 more"


def test_content_that_comes_back_is_current_again(ledger: Ledger, ct_headers: Headers) -> None:
    """A, then B, then A: within one batch and in three, and each time it opens the next revision of a whole study."""
    first = ct_headers(1)[0]
    other = replace(first, digest="other")
    arrivals.record(ledger, [*came([first], 10), *came([other], 11), *came([first], 12)])
    assert (digest_of(ledger, first), study(ledger).conflicts, study(ledger).revision) == (first.digest, 2, 1)
    finish(ledger)
    for number, content in enumerate([other, first, other]):
        assert arrivals.record(ledger, came([content], 20.0 + number)).conflicts == 1
        assert digest_of(ledger, first) == content.digest
        assert finish(ledger) == 2 + number
    assert [c.new_digest for c in told(ledger).conflicts] == ["other", first.digest] * 2 + ["other"]


def test_a_batch_is_taken_in_its_order(ledger: Ledger, ct_headers: Headers) -> None:
    first, second = ct_headers(2)
    other = replace(first, digest="other")
    batch = [*came([first, second, first], 10), *came([other, other, second], 11)]
    assert arrivals.record(ledger, batch) == Recorded(2, 3, 1, (STUDY,))
    row = study(ledger)
    assert (row.instances, row.duplicates, row.conflicts) == (2, 3, 1)
    assert digest_of(ledger, first) == "other"


def test_arrivals_that_overtook_each_other_end_the_same(ledger: Ledger, ct_headers: Headers) -> None:
    """Of two contents the later one is current, also when it is written to the ledger first."""
    first = ct_headers(1)[0]
    arrivals.record(ledger, came([replace(first, digest="other")], 10.2))
    finish(ledger)
    assert arrivals.record(ledger, came([first], 10.1)).conflicts == 1
    assert (digest_of(ledger, first), study(ledger).state) == ("other", "COMPLETE")
    (row,) = told(ledger).conflicts
    assert (row.digest, row.new_digest) == (first.digest, "other")


def test_a_clock_that_was_set_back_does_not_hide_what_comes(ledger: Ledger, ct_headers: Headers) -> None:
    first = ct_headers(1)[0]
    arrivals.record(ledger, came([first], 1000))
    assert arrivals.record(ledger, came([replace(first, digest="other")], 10)).conflicts == 1
    assert (digest_of(ledger, first), study(ledger).last_at) == ("other", 1000)
    arrivals.record(ledger, came([first], 1000, found=True))
    assert digest_of(ledger, first) == "other"


def test_the_same_uid_in_another_study_is_another_instance(ledger: Ledger, ct_headers: Headers) -> None:
    mine = came(ct_headers(2), 10)
    theirs = [replace(a, instance=replace(a.instance, study_uid="9.9", digest="theirs")) for a in mine]
    arrivals.record(ledger, mine)
    assert arrivals.record(ledger, theirs) == Recorded(fresh=2)
    found = {uid: arrivals.series_instances(ledger, uid, mine[0].instance.series_uid) for uid in (STUDY, "9.9")}
    assert found == {STUDY: [a.instance for a in mine], "9.9": [a.instance for a in theirs]}
    assert [(r.uid, r.instances, r.conflicts) for r in rows_of_studies(ledger)] == [(STUDY, 2, 0), ("9.9", 2, 0)]


def test_two_routers_that_send_the_same_study_make_one(ledger: Ledger, ct_headers: Headers) -> None:
    """Interleaved, in batches of two threads that write at the same time; and it is planned once."""
    sent = [
        [came([i], at)[0] for at, i in enumerate(ct_headers(60, calling_ae=ae), start=1)] for ae in ("ONE", "OTHER")
    ]

    def send(mine: list[Arrival], size: int) -> None:
        for start in range(0, len(mine), size):
            arrivals.record(ledger, mine[start : start + size])

    threads = [threading.Thread(target=send, args=(mine, size)) for mine, size in zip(sent, (7, 11), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = study(ledger)
    assert (row.instances, row.duplicates, row.conflicts, row.revision) == (60, 60, 0, 1)
    assert finish(ledger) == 1
    assert jobs.plan(ledger, STUDY, 1, [], [plan_of()]) == []
    assert jobs.plan(ledger, STUDY, 1, [], [plan_of("something else")]) is None
    assert job_rows(ledger) == [("lungs", "input 1", "SCHEDULED")]


def test_all_places_come_in_the_order_of_code_points(ledger: Ledger, ct_headers: Headers) -> None:
    paths = ["a/b", "a-b/c", "A/b", "a/B", "B/b", "a/\u00e9", "a/z", "a_b/c", "b/0-1", "b/0.1", "b/01"]
    made = [replace(a.instance, path=p) for a, p in zip(came(ct_headers(len(paths)), 0), paths, strict=True)]
    arrivals.record(ledger, [Arrival(i, 1, 10) for i in made])
    aside = replace(made[0], digest="other", path="a-a/z")
    arrivals.record(ledger, [Arrival(aside, 1, 20), Arrival(made[0], 1, 30)])
    assert list(arrivals.places(ledger)) == sorted(
        [*(Place(p, p) for p in paths), Place("a-a/z", paths[0])], key=lambda place: place.path
    )
    assert arrivals.known_paths(ledger, ["a/b", "a-a/z", "nowhere"]) == {"a/b"}


def test_many_places_come_in_pieces(ledger: Ledger, ct_headers: Headers, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a reader may stop, and others write meanwhile."""
    monkeypatch.setattr(arrivals, "STREAMED_ROWS", 3)
    arrivals.record(ledger, came(ct_headers(10), 10))
    places = arrivals.places(ledger)
    seen = [next(places)]
    arrivals.record(ledger, came(ct_headers(12), 20))
    seen += places
    assert len(seen) == 10
    stopped = arrivals.places(ledger)
    next(stopped)
    stopped.close()
    assert len(list(arrivals.places(ledger))) == 12


def test_a_late_instance_opens_the_next_revision(ledger: Ledger, ct_headers: Headers) -> None:
    arrivals.record(ledger, came(ct_headers(3), 10))
    assert finish(ledger) == 1
    assert arrivals.waiting(ledger) == []
    arrivals.record(ledger, came(ct_headers(5), 20))
    row = study(ledger)
    assert (row.state, row.revision, row.instances) == ("RECEIVING", 2, 5)
    assert finish(ledger) == 2


def test_a_study_that_grew_since_it_was_looked_at_is_not_closed(ledger: Ledger, ct_headers: Headers) -> None:
    arrivals.record(ledger, came(ct_headers(3), 10))
    (waiting,) = arrivals.waiting(ledger)
    arrivals.record(ledger, came(ct_headers(4), 11))
    assert arrivals.complete(ledger, waiting, 50) is None
    (waiting,) = arrivals.waiting(ledger)
    arrivals.record(ledger, came(ct_headers(5), 5))  # by a clock that was set back
    assert arrivals.complete(ledger, waiting, 50) is None
    assert finish(ledger) == 1


def test_a_value_that_the_database_does_not_take_is_refused_and_nothing_is_written(
    ledger: Ledger, ct_headers: Headers
) -> None:
    poison = [replace(i, modality="\ud800") for i in ct_headers(1, series=8)]
    with pytest.raises(Refused, match="the ledger cannot hold what came"):
        arrivals.record(ledger, came([*ct_headers(3), *poison], 10))
    assert views.recent_studies(ledger, 9) == []


def test_an_instance_of_many_gigabytes_can_be_counted(ledger: Ledger, ct_headers: Headers) -> None:
    arrivals.record(ledger, [replace(a, size_bytes=5 << 30) for a in came(ct_headers(1), 10)])
    assert study(ledger).instances == 1


# ------------------------------------------------------------------------------------------------------------- jobs


def plan_of(digest: str = "input 1", model: str = "lungs", version: str = "1", priority: int = 0) -> Plan:
    return Plan(model, version, "1.2.3", digest, priority)


@pytest.fixture
def routed(ledger: Ledger, ct_headers: Headers) -> Callable[..., list[Move]]:
    """``routed(plan, …)``: the study grows by an instance, is closed, and meets the models."""
    size = [0]

    def route(*plans: Plan) -> list[Move]:
        size[0] += 1
        arrivals.record(ledger, came(ct_headers(size[0]), float(size[0])))
        revision = finish(ledger)
        assert revision is not None
        decisions = [Decision(p.model, p.series_uid, "series 2", True, "it suits") for p in plans]
        moves = jobs.plan(ledger, STUDY, revision, decisions, plans)
        assert moves is not None
        return moves

    return route


def job_rows(ledger: Ledger) -> list[tuple[str, str, str]]:
    with ledger.read() as session:
        rows = session.exec(select(JobRow).order_by(col(JobRow.id))).all()
        return [(r.model, r.input_digest, r.state) for r in rows]


def claimed(ledger: Ledger, worker: str = "w1", lease_s: float = 60) -> Job:
    move = jobs.claim(ledger, worker, lease_s)
    assert move is not None
    return move.job


def test_a_complete_study_is_unrouted_until_it_met_the_models(
    ledger: Ledger, routed: Callable, ct_headers: Headers
) -> None:
    arrivals.record(ledger, came(ct_headers(2), 0.5))
    assert arrivals.unrouted(ledger) == []
    finish(ledger)
    (found,) = arrivals.unrouted(ledger)
    assert (found.uid, found.revision, len(found.series[0].instances)) == (STUDY, 1, 2)
    jobs.plan(ledger, STUDY, 1, [], [])
    assert arrivals.unrouted(ledger) == []


def test_a_plan_becomes_a_job_with_its_decision_and_event(ledger: Ledger, routed: Callable) -> None:
    assert routed(plan_of()) == []
    told = views.story(ledger, STUDY)
    assert told is not None
    (job,) = told.jobs
    assert (job.row.state, job.row.model, job.row.revision, job.row.last_at) == ("SCHEDULED", "lungs", 1, 1.0)
    assert [(e.who, e.event, e.before, e.after) for e in job.events] == [("router", "plan", "", "SCHEDULED")]
    assert [(d.model, d.chosen, d.reason) for d in told.decisions] == [("lungs", True, "it suits")]


def test_a_plan_for_a_study_that_has_grown_is_void(ledger: Ledger, ct_headers: Headers) -> None:
    arrivals.record(ledger, came(ct_headers(2), 1))
    finish(ledger)
    arrivals.record(ledger, came(ct_headers(3), 2))
    assert jobs.plan(ledger, STUDY, 1, [], [plan_of()]) is None
    finish(ledger)
    assert jobs.plan(ledger, STUDY, 1, [], [plan_of()]) is None
    assert jobs.plan(ledger, "9.9", 1, [], [plan_of()]) is None
    with ledger.read() as session:
        assert session.exec(select(JobRow)).all() == []
        assert session.exec(select(DecisionRow)).all() == []


def test_the_same_input_is_planned_once(ledger: Ledger, routed: Callable) -> None:
    for _ in range(3):
        assert routed(plan_of()) == []
    assert job_rows(ledger) == [("lungs", "input 1", "SCHEDULED")]


def test_input_that_comes_back_is_read_again(ledger: Ledger, routed: Callable) -> None:
    """A, then B, then A: the answer for A is the last one, and once it is, the same input makes no further job."""
    for digest in ("a", "b", "a", "a"):
        routed(plan_of(digest))
    assert job_rows(ledger) == [("lungs", "a", "SUPERSEDED"), ("lungs", "b", "SUPERSEDED"), ("lungs", "a", "SCHEDULED")]
    assert [j.row.revision for j in told(ledger).jobs] == [1, 2, 3]


def test_input_that_the_model_did_not_read_for_a_while_is_read_again(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of("a"))
    arrivals.record(ledger, came([replace(i, digest="b") for i in made_of(ledger)], 50))
    declined = [Decision("lungs", "", "", False, "no series suits")]
    moves = jobs.plan(ledger, STUDY, finish(ledger) or 0, declined, [])
    assert moves is not None
    assert [m.after for m in moves] == [JobState.SUPERSEDED]
    arrivals.record(ledger, came([replace(i, digest="a") for i in made_of(ledger)], 60))
    assert jobs.plan(ledger, STUDY, finish(ledger) or 0, [], [plan_of("a")]) == []
    assert job_rows(ledger) == [("lungs", "a", "SUPERSEDED"), ("lungs", "a", "SCHEDULED")]


def made_of(ledger: Ledger) -> list[Instance]:
    return [Instance.from_json(row.header) for row in instance_rows(ledger)]


def test_one_revision_is_planned_once(ledger: Ledger, ct_headers: Headers) -> None:
    """Two processes that route have both seen the study complete."""
    arrivals.record(ledger, came(ct_headers(2), 1))
    finish(ledger)
    decisions = [Decision("lungs", "1.2.3", "series 2", True, "it suits")]
    got: list[object] = []
    threads = [
        threading.Thread(target=lambda: got.append(jobs.plan(ledger, STUDY, 1, decisions, [plan_of()])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got, key=str) == [None, None, None, []]
    assert (len(told(ledger).jobs), len(told(ledger).decisions)) == (1, 1)


def test_newer_input_supersedes_older_jobs_of_the_same_model(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of("a"), plan_of("a", model="heart"))
    (move,) = routed(plan_of("b"))
    assert (move.job.input_digest, move.before, move.after) == ("a", JobState.SCHEDULED, JobState.SUPERSEDED)
    assert job_rows(ledger) == [
        ("lungs", "a", "SUPERSEDED"),
        ("heart", "a", "SCHEDULED"),
        ("lungs", "b", "SCHEDULED"),
    ]


def test_a_newer_version_of_a_model_supersedes_the_older_ones_jobs(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of("a", version="1"))
    (move,) = routed(plan_of("a", version="2"))
    assert (move.job.model_version, move.after) == ("1", JobState.SUPERSEDED)


def test_superseding_drops_what_has_not_left_yet(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of("a"))
    read(ledger, claimed(ledger), "seg", "sr")
    mark(ledger, due(ledger, "archive"), DeliveryState.VERIFIED)
    held_up = due(ledger, "pacs")
    (move,) = routed(plan_of("b"))
    assert move.before is JobState.DELIVERING
    states = {("pacs", "seg"): "DROPPED", ("pacs", "sr"): "DROPPED", ("archive", "seg"): "VERIFIED"}
    assert delivery_states(ledger) == states
    assert due(ledger, "pacs") == []
    assert not mark(ledger, held_up, DeliveryState.SENT)


def test_a_claim_takes_the_most_urgent_and_then_the_oldest(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of(model="a"), plan_of(model="b", priority=5), plan_of(model="c"))
    assert [claimed(ledger).model for _ in range(3)] == ["b", "a", "c"]
    assert jobs.claim(ledger, "w1", 60) is None


def test_a_claim_leaves_an_event(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of())
    move = jobs.claim(ledger, "w1", 60)
    assert move is not None
    assert (move.before, move.after, move.job.attempts) == (JobState.SCHEDULED, JobState.RUNNING, 0)
    told = views.story(ledger, STUDY)
    assert told is not None
    assert (told.jobs[0].events[-1].who, told.jobs[0].events[-1].why) == ("w1", "attempt 1")


def test_many_workers_get_each_job_once(ledger: Ledger, routed: Callable) -> None:
    routed(*(plan_of(model=f"m{k}") for k in range(24)))
    got: list[int] = []
    faults: list[Exception] = []

    def work(name: str) -> None:
        try:
            idle = 0
            while idle < 5:
                move = jobs.claim(ledger, name, 60)
                idle = 0 if move else idle + 1
                got.extend([move.job.id] if move else [])
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(got) == len(set(got)) == 24


def test_a_job_that_waits_is_not_claimed_before_its_time(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of())
    job = claimed(ledger)
    later = {"attempts": 1, "not_before": time.time() + 0.3}
    assert jobs.move(ledger, job.id, JobEvent.STUMBLED, "w1", "it failed", **later)
    assert jobs.claim(ledger, "w1", 60) is None
    time.sleep(0.35)
    assert claimed(ledger).attempts == 1


def test_a_lease_that_ran_out_gives_the_job_back(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of())
    job = claimed(ledger, "w1", lease_s=10)
    assert jobs.lapse(ledger, time.time() + 5) == []
    assert jobs.renew(ledger, job.id, "w1", 60, 0.5)
    assert jobs.lapse(ledger, time.time() + 30) == []
    (move,) = jobs.lapse(ledger, time.time() + 61)
    assert (move.job.id, move.after) == (job.id, JobState.SCHEDULED)
    assert not jobs.renew(ledger, job.id, "w1", 60, 0.6)
    assert claimed(ledger, "w2").id == job.id
    assert not jobs.renew(ledger, job.id, "w1", 60, 0.7)


def test_a_worker_that_starts_again_gives_back_what_it_held(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of(model="a"), plan_of(model="b"))
    mine, other = claimed(ledger, "w1"), claimed(ledger, "w2")
    (move,) = jobs.lapse(ledger, time.time(), worker="w1")
    assert move.job.id == mine.id
    assert job_rows(ledger)[other.id - 1][2] == "RUNNING"


@pytest.mark.parametrize("event", [JobEvent.STUMBLED, JobEvent.UNFIT, JobEvent.GAVE_UP, JobEvent.LOST])
def test_a_worker_cannot_speak_of_a_job_it_no_longer_holds(ledger: Ledger, routed: Callable, event: JobEvent) -> None:
    routed(plan_of())
    job = claimed(ledger, "w1")
    jobs.lapse(ledger, time.time() + 999)
    claimed(ledger, "w2")
    assert jobs.move(ledger, job.id, event, "w1", "too late") is None
    assert deliveries.put(ledger, job.id, "w1", results(job, "seg"), KINDS) is None
    assert job_rows(ledger)[0][2] == "RUNNING"
    assert jobs.move(ledger, job.id, event, "w2", "in time") is not None


def test_a_move_that_the_table_does_not_know_does_not_happen(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of())
    for event in set(JobEvent) - {JobEvent.CLAIM, JobEvent.CANCEL, JobEvent.SUPERSEDE}:
        assert jobs.move(ledger, 1, event, "somebody") is None
    assert jobs.move(ledger, 999, JobEvent.CANCEL, "somebody") is None
    assert jobs.move(ledger, 1, JobEvent.CANCEL, "somebody", "not needed") is not None
    assert jobs.move(ledger, 1, JobEvent.CANCEL, "somebody") is None
    with ledger.read() as session:
        assert len(session.exec(select(EventRow)).all()) == 2


# ------------------------------------------------------------------------------------------------------- deliveries


def results(job: Job, *kinds: str) -> list[Result]:
    return [
        Result(kind, "1.2.840", f"1.2.9.{job.id}.{n}", "1.2.8", STUDY, "1.2.840.10008.1.2.1", f"{kind}.dcm", "00")
        for n, kind in enumerate(kinds)
    ]


def due(
    ledger: Ledger, destination: str, *, worker: str = "out", in_order: bool = True, lease_s: float = 60.0
) -> list[Delivery]:
    """Claim what is due, to be sent or to be proven."""
    terms = Claim(worker, lease_s, 50, in_order)
    found = deliveries.claim(ledger, destination, DeliveryState.PENDING, terms)
    return found or deliveries.claim(ledger, destination, DeliveryState.SENT, terms)


def mark(ledger: Ledger, claimed: list[Delivery], state: DeliveryState, *, worker: str = "out", **values: Any) -> int:
    """Mark what was claimed; how many it was still the worker's to mark."""
    return len(deliveries.mark(ledger, worker, [Mark(d.id, state, **values) for d in claimed]))


def read(ledger: Ledger, job: Job, *kinds: str) -> Move | None:
    return deliveries.put(ledger, job.id, "w1", results(job, *kinds), KINDS)


def delivery_states(ledger: Ledger) -> dict[tuple[str, str], str]:
    told = views.story(ledger, STUDY)
    assert told is not None
    kinds = {r.sop_instance_uid: r.kind for job in told.jobs for r in job.results}
    return {(d.destination, kinds[d.sop_instance_uid]): d.state for job in told.jobs for d in job.deliveries}


@pytest.fixture
def delivering(ledger: Ledger, routed: Callable) -> Job:
    """A job that was read: seg and sr for the PACS, seg for the archive."""
    routed(plan_of())
    job = claimed(ledger)
    move = read(ledger, job, "seg", "sr")
    assert move is not None
    assert move.after is JobState.DELIVERING
    return move.job


def test_results_and_their_deliveries_are_put_in_one_step(ledger: Ledger, delivering: Job) -> None:
    assert delivery_states(ledger) == dict.fromkeys([("pacs", "seg"), ("pacs", "sr"), ("archive", "seg")], "PENDING")
    assert read(ledger, delivering, "seg", "sr") is None


def test_what_is_due_at_one_destination_is_claimed_by_one(ledger: Ledger, delivering: Job) -> None:
    claimed_ = due(ledger, "pacs")
    assert {(d.job_id, d.model, d.destination, d.attempts, d.last_at) for d in claimed_} == {
        (delivering.id, "lungs", "pacs", 0, 1.0)
    }
    assert [d.result for d in claimed_] == results(delivering, "seg", "sr")
    assert due(ledger, "pacs", worker="somebody else") == []
    assert [len(due(ledger, "archive")), due(ledger, "nowhere")] == [1, []]


def test_a_claim_that_ran_out_is_taken_by_another_and_the_first_can_say_nothing_more(
    ledger: Ledger, delivering: Job
) -> None:
    late = due(ledger, "pacs", worker="a", lease_s=0.0)
    taken = due(ledger, "pacs", worker="b")
    assert [d.id for d in taken] == [d.id for d in late]
    assert mark(ledger, late, DeliveryState.SENT, worker="a", tried=True) == 0
    deliveries.renew(ledger, "b", [d.id for d in taken], time.time() + 100)
    assert mark(ledger, taken, DeliveryState.SENT, worker="b", tried=True) == 2


def test_who_was_started_again_gives_back_what_it_held(ledger: Ledger, delivering: Job) -> None:
    due(ledger, "pacs", worker="host_1#pacs#0")
    assert deliveries.release(ledger, "host%1#pacs#") == 0
    assert deliveries.release(ledger, "host_1#pacs#") == 2
    assert len(due(ledger, "pacs", worker="another")) == 2


def test_many_senders_get_each_delivery_once(ledger: Ledger, delivering: Job) -> None:
    got: list[int] = []

    def take(n: int) -> None:
        got.extend(d.id for d in due(ledger, "pacs", worker=f"w{n}"))

    threads = [threading.Thread(target=take, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(set(got))
    assert len(got) == 2


def test_a_delivery_is_sent_proven_and_its_job_completed(ledger: Ledger, delivering: Job) -> None:
    for destination in KINDS:
        assert mark(ledger, due(ledger, destination), DeliveryState.SENT, tried=True, asked=0)
        assert deliveries.settle(ledger) == []
        sent = due(ledger, destination)
        assert {(d.state, d.attempts) for d in sent} == {(DeliveryState.SENT, 1)}
        assert mark(ledger, sent, DeliveryState.VERIFIED)
    (move,) = deliveries.settle(ledger)
    assert (move.after, move.job.id) == (JobState.COMPLETED, delivering.id)
    assert deliveries.settle(ledger) == []


def test_a_delivery_that_waits_is_not_due_before_its_time(ledger: Ledger, delivering: Job) -> None:
    mark(ledger, due(ledger, "pacs"), DeliveryState.PENDING, reason="down", not_before=time.time() + 0.3, tried=True)
    assert due(ledger, "pacs") == []
    time.sleep(0.35)
    assert {d.attempts for d in due(ledger, "pacs")} == {1}


@pytest.mark.parametrize("in_order", [True, False])
def test_nothing_overtakes_an_earlier_result_of_its_study_where_order_is_asked(
    ledger: Ledger, delivering: Job, in_order: bool
) -> None:
    seg, sr = due(ledger, "pacs")
    mark(ledger, [seg], DeliveryState.PENDING, not_before=time.time() + 100)
    mark(ledger, [sr], DeliveryState.PENDING)
    assert [d.id for d in due(ledger, "pacs", in_order=in_order)] == ([] if in_order else [sr.id])
    assert len(due(ledger, "archive", in_order=True)) == 1, "another destination is not held up"


def test_one_delivery_that_was_given_up_fails_the_job_when_the_others_have_ended(
    ledger: Ledger, delivering: Job
) -> None:
    mark(ledger, due(ledger, "pacs"), DeliveryState.FAILED, reason="refused for good")
    assert deliveries.settle(ledger) == []
    mark(ledger, due(ledger, "archive"), DeliveryState.VERIFIED)
    (move,) = deliveries.settle(ledger)
    assert move.after is JobState.FAILED
    told = views.story(ledger, STUDY)
    assert told is not None
    assert told.jobs[0].row.reason == "pacs: refused for good"


def test_a_dead_letter_is_retried_alone_and_its_job_delivers_again(ledger: Ledger, delivering: Job) -> None:
    seg, sr = due(ledger, "pacs")
    mark(ledger, [seg], DeliveryState.FAILED, reason="refused for good")
    mark(ledger, [sr], DeliveryState.VERIFIED)
    mark(ledger, due(ledger, "archive"), DeliveryState.VERIFIED)
    deliveries.settle(ledger)
    assert letters.dead(ledger, "pacs") == letters.dead(ledger, "") == [seg.id]
    letter, move = letters.retry(ledger, seg.id, "Ada")
    assert (letter.kind, move and move.after) == ("seg", JobState.DELIVERING)
    assert [(d.id, d.attempts) for d in due(ledger, "pacs")] == [(seg.id, 0)]
    with pytest.raises(Refused, match="it is VERIFIED"):
        letters.retry(ledger, sr.id, "Ada")
    with pytest.raises(Refused, match="there is no such delivery"):
        letters.retry(ledger, 999, "Ada")


def test_what_a_person_drops_is_not_sent_and_can_be_taken_back(ledger: Ledger, delivering: Job) -> None:
    seg, sr = due(ledger, "pacs")
    letters.drop(ledger, seg.id, "Ada")
    assert mark(ledger, [seg], DeliveryState.SENT) == 0, "who was about to send it can say nothing of it any more"
    mark(ledger, [sr, *due(ledger, "archive")], DeliveryState.VERIFIED)
    (move,) = deliveries.settle(ledger)
    assert move.after is JobState.COMPLETED
    letters.retry(ledger, seg.id, "Ada")
    assert [d.id for d in due(ledger, "pacs")] == [seg.id]


def test_a_destination_that_is_not_configured_any_more_makes_dead_letters(ledger: Ledger, delivering: Job) -> None:
    assert destinations.forsake(ledger, ["archive"]) == 2
    assert delivery_states(ledger)["pacs", "seg"] == "FAILED"
    assert delivery_states(ledger)["archive", "seg"] == "PENDING"


def test_a_breaker_opens_after_so_many_failures_is_probed_by_one_and_lets_out_what_waited(
    ledger: Ledger, delivering: Job
) -> None:
    now = time.time()
    mark(ledger, due(ledger, "pacs"), DeliveryState.PENDING, cause="unreachable", not_before=now + 100)
    opened = [destinations.failed(ledger, "pacs", "down", now, opens_after=3, probe_at=now + 5) for _ in range(4)]
    assert opened == [False, False, True, False]
    assert views.backlog(ledger, now).open_destinations == {"pacs"}
    assert not destinations.take_probe(ledger, "pacs", now, 10.0)
    assert destinations.take_probe(ledger, "pacs", now + 6, 10.0)
    assert not destinations.take_probe(ledger, "pacs", now + 6, 10.0)
    assert destinations.answered(ledger, "pacs", now, took=False)
    assert destinations.stand(ledger, "pacs").failures == 4, "it has only greeted"
    assert len(due(ledger, "pacs")) == 2
    assert destinations.failed(ledger, "pacs", "down", now, opens_after=3, probe_at=now)
    destinations.answered(ledger, "pacs", now, took=True)
    assert destinations.stand(ledger, "pacs").failures == 0


def test_a_newer_result_goes_to_every_destination_that_may_have_got_the_earlier_one(
    ledger: Ledger, routed: Callable
) -> None:
    """The settings have changed since: the archive takes no segmentation any more, and only the PACS wants notes."""
    routed(plan_of("a"))
    read(ledger, claimed(ledger), "seg", "sr")
    due(ledger, "archive")  # handed out to be sent, and then the process was killed: it may be there
    routed(plan_of("b"))
    assert set(delivery_states(ledger).values()) == {"DROPPED"}
    newer = claimed(ledger)
    assert [r.kind for r in superseded(ledger, newer).results] == ["seg"]
    made = results(newer, "seg", "sr", "rejection")
    deliveries.put(ledger, newer.id, "w1", made, {"pacs": ("seg", "rejection"), "archive": ("sr", "rejection")})
    going = {(d.destination, kind) for (d, kind) in _going(ledger)}
    assert going == {("pacs", "seg"), ("archive", "seg"), ("archive", "sr"), ("archive", "rejection")}


def _going(ledger: Ledger) -> list[tuple[DeliveryRow, str]]:
    return [(letter.row, letter.kind) for letter in letters.letters(ledger, state="PENDING")]


@pytest.mark.parametrize("study", ["of a patient", "a canary"])
def test_canaries_and_patients_have_destinations_of_their_own(ledger: Ledger, routed: Callable, study: str) -> None:
    """What is generated reaches no clinical system, and nothing of a patient goes where canaries are expected."""
    routed(plan_of())
    job = claimed(ledger)
    if study == "a canary":
        with ledger.write() as session:
            session.get_one(JobRow, job.id).study_uid = canary.study_uid(1.0)
    kinds = {"pacs": ("seg", "sr"), "nest": tuple(map(canary.reserved, ("seg", "sr")))}
    deliveries.put(ledger, job.id, "w1", results(job, "seg", "sr"), kinds)
    to = "nest" if study == "a canary" else "pacs"
    assert [(row.destination, kind) for row, kind in _going(ledger)] == [(to, "seg"), (to, "sr")]


def test_a_job_that_made_nothing_is_completed(ledger: Ledger, routed: Callable) -> None:
    routed(plan_of())
    read(ledger, claimed(ledger))
    (move,) = deliveries.settle(ledger)
    assert move.after is JobState.COMPLETED


def test_requeue_starts_the_failed_deliveries_anew_and_only_those(ledger: Ledger, delivering: Job) -> None:
    mark(ledger, due(ledger, "pacs"), DeliveryState.FAILED, reason="no")
    mark(ledger, due(ledger, "archive"), DeliveryState.VERIFIED)
    deliveries.settle(ledger)
    move = canceled.requeue(ledger, delivering.id, "Ada")
    assert (move.after, move.job.attempts) == (JobState.SCHEDULED, 0)
    states = delivery_states(ledger)
    assert states == {("pacs", "seg"): "PENDING", ("pacs", "sr"): "PENDING", ("archive", "seg"): "VERIFIED"}
    assert read(ledger, claimed(ledger), "seg", "sr") is not None
    assert delivery_states(ledger) == states


def test_requeue_of_a_job_that_has_not_failed_changes_nothing(
    ledger: Ledger, delivering: Job, routed: Callable
) -> None:
    """Its result was superseded; what was given up then must not leave now."""
    mark(ledger, due(ledger, "pacs"), DeliveryState.FAILED, reason="no")
    routed(plan_of("newer"))
    with pytest.raises(Refused, match=r"job 1 is SUPERSEDED; only one that FAILED or was CANCELED can be sent back"):
        canceled.requeue(ledger, delivering.id, "Ada")
    assert delivery_states(ledger)["pacs", "seg"] == "DROPPED"
    with pytest.raises(Refused, match="there is no job 999"):
        canceled.requeue(ledger, 999, "Ada")


def test_what_was_canceled_and_sent_back_goes_as_one_set_and_not_twice(ledger: Ledger, delivering: Job) -> None:
    """What had arrived stays; the others go when the job has been read anew, none of them alone."""
    arrived = due(ledger, "archive")
    mark(ledger, arrived, DeliveryState.VERIFIED)
    letter = next(d.id for d in due(ledger, "pacs"))
    canceled.cancel(ledger, delivering.id, "Ada")
    assert delivery_states(ledger)["pacs", "seg"] == "DROPPED"
    with pytest.raises(Refused, match=r"its job was canceled, .* overread requeue 1 makes and sends"):
        letters.retry(ledger, letter, "Ada")
    move = canceled.requeue(ledger, delivering.id, "Ada")
    assert (move.before, move.after, move.job.attempts) == (JobState.CANCELED, JobState.SCHEDULED, 0)
    with pytest.raises(Refused, match="its job was canceled"):
        letters.retry(ledger, letter, "Ada")
    job = claimed(ledger)
    assert due(ledger, "pacs") == []
    assert read(ledger, job, "seg", "sr") is not None
    states = {("pacs", "seg"): "PENDING", ("pacs", "sr"): "PENDING", ("archive", "seg"): "VERIFIED"}
    assert delivery_states(ledger) == states
    mark(ledger, due(ledger, "pacs"), DeliveryState.VERIFIED)
    (ended,) = deliveries.settle(ledger)
    assert ended.after is JobState.COMPLETED


def test_a_canceled_job_is_not_sent_back_beside_a_newer_one_or_without_images(
    ledger: Ledger, delivering: Job, routed: Callable
) -> None:
    canceled.cancel(ledger, delivering.id, "Ada")
    assert views.purge(ledger, STUDY, 50.0, 9.0)
    with pytest.raises(Refused, match="the images of job 1 are gone; send its study again"):
        canceled.requeue(ledger, delivering.id, "Ada")
    routed(plan_of("newer"))
    with pytest.raises(Refused, match="job 2 has taken the place of job 1"):
        canceled.requeue(ledger, delivering.id, "Ada")


def test_a_job_that_failed_can_be_closed(ledger: Ledger, delivering: Job) -> None:
    """Its dead letters go nowhere, and its study is no longer kept for it."""
    mark(ledger, due(ledger, "pacs"), DeliveryState.FAILED, reason="no")
    mark(ledger, due(ledger, "archive"), DeliveryState.VERIFIED)
    deliveries.settle(ledger)
    assert views.disposable(ledger, 50.0) == []
    closed = canceled.cancel(ledger, delivering.id, "Ada")
    assert (closed.move.before, closed.move.after, closed.dropped, closed.arrived) == ("FAILED", "CANCELED", 2, 1)
    assert views.disposable(ledger, 50.0) == [STUDY]
    with pytest.raises(Refused, match="is CANCELED; there is nothing to cancel"):
        canceled.cancel(ledger, delivering.id, "Ada")


def test_a_result_that_is_made_again_by_a_later_job_goes_again(ledger: Ledger, routed: Callable) -> None:
    """A, then B, then A: equal input gives equal UIDs; whatever became of the first delivery, the last one is made."""
    routed(plan_of("a"))
    first = claimed(ledger)
    made = results(first, "seg", "sr")
    deliveries.put(ledger, first.id, "w1", made, KINDS)
    mark(ledger, due(ledger, "archive"), DeliveryState.VERIFIED)
    held_up = due(ledger, "pacs")
    routed(plan_of("b"))
    routed(plan_of("a"))
    last = claimed(ledger)
    assert deliveries.put(ledger, last.id, "w1", made, KINDS) is not None
    assert set(delivery_states(ledger).values()) == {"PENDING"}
    assert [len(j.deliveries) for j in told(ledger).jobs] == [0, 0, 3]
    assert [len(j.results) for j in told(ledger).jobs] == [0, 0, 2]
    assert not mark(ledger, held_up, DeliveryState.VERIFIED)
    for destination in KINDS:
        again = due(ledger, destination)
        assert {d.job_id for d in again} == {last.id}
        mark(ledger, again, DeliveryState.VERIFIED)
    (move,) = deliveries.settle(ledger)
    assert (move.job.id, move.after) == (last.id, JobState.COMPLETED)


def test_ten_deliveries_of_one_result_are_one_delivery(ledger: Ledger, delivering: Job) -> None:
    jobs.move(ledger, delivering.id, JobEvent.GAVE_UP, "deliver", "given up")
    canceled.requeue(ledger, delivering.id, "Ada")
    read(ledger, claimed(ledger), "seg", "sr")
    with ledger.read() as session:
        assert len(session.exec(select(DeliveryRow)).all()) == 3


# ------------------------------------------------------------------------------------------------------------ views


def test_the_backlog_counts_what_waits_and_for_how_long(ledger: Ledger, routed: Callable) -> None:
    assert views.backlog(ledger, time.time()).jobs == {}
    routed(plan_of(model="a"), plan_of(model="b"), plan_of(model="c"))
    read(ledger, claimed(ledger), "seg", "sr")
    found = views.backlog(ledger, time.time() + 100)
    assert found.studies == {"COMPLETE": 1}
    assert found.jobs == {("a", "DELIVERING"): 1, ("b", "SCHEDULED"): 1, ("c", "SCHEDULED"): 1}
    assert found.deliveries == {("pacs", "PENDING"): 2, ("archive", "PENDING"): 1}
    assert 99 < found.oldest_job_s < 130
    assert 99 < found.oldest_delivery_s < 130
    assert [r.model for r in views.jobs_in(ledger, [JobState.SCHEDULED], 9)] in (["b", "c"], ["c", "b"])


def test_a_study_that_nobody_knows_has_no_story(ledger: Ledger) -> None:
    assert views.story(ledger, "9.9") is None


def test_models_that_a_study_is_not_for_are_told_together(ledger: Ledger, ct_headers: Headers) -> None:
    arrivals.record(ledger, came(ct_headers(1), 1.0))
    revision = finish(ledger)
    assert revision is not None
    why = "the study was sent to STAT, for other models"
    aloof = [Decision(model, "", "", False, why) for model in ("a", "c", "d")]
    jobs.plan(ledger, STUDY, revision, [*aloof, Decision("b", "1.2.3", "series 2", True, "it suits")], [])
    lines = list(explain(told(ledger)))
    assert [line for line in lines if "not run" in line] == [f"    not run: {why}"]
    assert "  Models a, c, d:" in lines
    assert "  Model b:" in lines


def end(ledger: Ledger, *events: JobEvent) -> None:
    job = claimed(ledger)
    for event in events:
        jobs.move(ledger, job.id, event, "w1", "so")


@pytest.mark.parametrize(
    ("events", "disposable"),
    [
        ([], False),
        ([JobEvent.UNFIT], True),
        ([JobEvent.CANCEL], True),
        ([JobEvent.READ], False),
        ([JobEvent.READ, JobEvent.VERIFIED], True),
        ([JobEvent.GAVE_UP], False),
    ],
)
def test_a_study_may_go_when_every_job_has_ended_well(
    ledger: Ledger, routed: Callable, events: list[JobEvent], disposable: bool
) -> None:
    routed(plan_of())
    end(ledger, *events)
    assert views.disposable(ledger, 50.0) == ([STUDY] if disposable else [])
    assert views.disposable(ledger, 1.0) == []


def test_a_study_that_no_model_reads_may_go_once_that_was_decided(ledger: Ledger, ct_headers: Headers) -> None:
    arrivals.record(ledger, came(ct_headers(2), 1))
    assert views.disposable(ledger, 50.0) == []
    finish(ledger)
    assert views.disposable(ledger, 50.0) == []
    jobs.plan(ledger, STUDY, 1, [], [])
    assert views.disposable(ledger, 50.0) == [STUDY]


def test_purging_forgets_the_instances_and_keeps_the_story(
    ledger: Ledger, routed: Callable, ct_headers: Headers
) -> None:
    routed(plan_of())
    end(ledger, JobEvent.UNFIT)
    paths = views.purge(ledger, STUDY, 50.0, 60.0)
    assert paths == {a.instance.path for a in came(ct_headers(1), 0)}
    assert arrivals.known_paths(ledger) == set()
    assert views.disposable(ledger, 50.0) == []
    told = views.story(ledger, STUDY)
    assert told is not None
    assert (told.study.purged_at, len(told.jobs)) == (60.0, 1)


def test_a_study_that_grew_since_it_was_looked_at_is_not_purged(
    ledger: Ledger, routed: Callable, ct_headers: Headers
) -> None:
    routed(plan_of())
    end(ledger, JobEvent.UNFIT)
    arrivals.record(ledger, came(ct_headers(2), 70))
    assert views.purge(ledger, STUDY, 50.0, 80.0) is None
    finish(ledger)
    assert views.purge(ledger, STUDY, 50.0, 80.0) is None
    assert len(arrivals.known_paths(ledger)) == 2
    assert views.purge(ledger, "9.9", 50.0, 80.0) is None


# ---------------------------------------------------------------------------------------------- called AE titles

SERVED = {"STAT": CalledAE("STAT", "STAT", "head")}


def came_to(called_ae: str, headers: Sequence[Instance], at: float) -> list[Arrival]:
    return [replace(a, instance=replace(a.instance, called_ae=called_ae)) for a in came(headers, at)]


def test_a_study_remembers_every_title_it_was_sent_to(ledger: Ledger, ct_headers: Headers) -> None:
    """Duplicates included, also when it is complete: to send it again to an urgent title is a way to say so."""
    arrivals.record(ledger, came_to("OVERREAD", ct_headers(2), 1.0))
    finish(ledger)
    assert arrivals.unrouted(ledger)[0].called_aes == ("OVERREAD",)
    assert arrivals.record(ledger, came_to("STAT", ct_headers(1), 2.0)).duplicates == 1
    assert study(ledger).state == "COMPLETE"
    assert arrivals.unrouted(ledger)[0].called_aes == ("OVERREAD", "STAT")


def test_a_job_carries_the_urgency_of_its_study_and_is_claimed_first(ledger: Ledger, routed: Callable) -> None:
    usual = replace(plan_of(model="usual"), called_aes="OVERREAD")
    urgent = replace(plan_of(model="urgent", priority=2000), called_aes="STAT", urgency="STAT", hint="head")
    routed(usual, urgent)
    job = claimed(ledger)
    assert (job.model, job.urgency, job.hint) == ("urgent", "STAT", "head")
    assert claimed(ledger).model == "usual"
    assert "    priority STAT, hint head" in list(explain(told(ledger)))


def test_waiting_jobs_move_ahead_when_their_study_is_sent_to_an_urgent_title(
    ledger: Ledger, routed: Callable, ct_headers: Headers
) -> None:
    routed(plan_of(model="first", priority=5), plan_of(model="second", priority=7))
    assert claimed(ledger).model == "second"
    arrivals.record(ledger, came_to("STAT", ct_headers(1), 2.0))
    assert jobs.reorder(ledger, lambda titles: errand(titles, SERVED)) == 1
    assert jobs.reorder(ledger, lambda titles: errand(titles, SERVED)) == 0
    job = claimed(ledger)
    assert (job.model, job.priority, job.urgency, job.hint) == ("first", 2005, "STAT", "head")
