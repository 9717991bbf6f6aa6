"""Questions about studies and jobs, and decisions about them: status, explain, replay, requeue, cancel."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from overread.cli.command import Commands, command
from overread.cli.command import settings as read
from overread.domain.errors import Refused

if TYPE_CHECKING:
    from overread.ledger.canceled import Canceled


def add(commands: Commands) -> None:
    command(commands, "status", _status, "show studies, jobs and deliveries at a glance")
    explain = command(commands, "explain", _explain, "tell everything about one study, with reasons")
    explain.add_argument("study", help="Study Instance UID")
    replay = command(commands, "replay", _replay, "make a job's results again and tell what, if anything, differs")
    replay.add_argument("job", type=int, help="job number, as status and explain show it")
    requeue = command(commands, "requeue", _requeue, "send a FAILED or CANCELED job back to be read again")
    requeue.add_argument("job", type=int, help="job number, as status and explain show it")
    cancel = command(commands, "cancel", _cancel, "have jobs read no further, or close FAILED ones")
    cancel.add_argument("jobs", nargs="*", type=int, metavar="JOB", help="job numbers, as status and explain show them")
    cancel.add_argument("--study", default="", help="every job of this study; one that no model has met yet meets none")


def _status(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.words import status

    for line in status(wiring.ledger(read(options)), time.time()):
        print(line)
    return 0


def _explain(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.words import explain
    from overread.ledger.views import story

    found = story(wiring.ledger(read(options)), options.study)
    if found is None:
        print(f"overread: no instance of study {options.study} has come; is the UID right?", file=sys.stderr)
        return 1
    for line in explain(found):
        print(line)
    return 0


def _replay(options: argparse.Namespace) -> int:
    from overread.replay import replay

    outcome = replay(read(options), options.job)
    for line in outcome.lines:
        print(line)
    print("everything is as it was" if outcome.same else "not everything is as it was")
    return 0 if outcome.same else 1


def _cancel(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.ledger import canceled

    if bool(options.jobs) == bool(options.study):
        print("overread: name jobs, or a study with --study", file=sys.stderr)
        return 2
    books, code = wiring.ledger(read(options)), 0
    try:
        if options.study:
            for one in canceled.cancel_study(books, options.study, "command line"):
                print(_canceled(one))
            print("nothing more is read of this study until it changes")
        for job in dict.fromkeys(options.jobs):
            try:
                print(_canceled(canceled.cancel(books, job, "command line")))
            except Refused as error:
                print(f"overread: {error}", file=sys.stderr)
                code = 1
    finally:
        books.close()
    return code


def _canceled(one: Canceled) -> str:
    dropped = f"; {one.dropped} of its results will not be sent" if one.dropped else ""
    arrived = f"; {one.arrived} had arrived already and stay there" if one.arrived else ""
    return f"job {one.move.job.id} was {one.move.before} and is {one.move.after}{dropped}{arrived}"


def _requeue(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.ledger.canceled import requeue

    books = wiring.ledger(read(options))
    try:
        moved = requeue(books, options.job, "command line")
    except Refused as error:
        print(f"overread: {error}", file=sys.stderr)
        return 1
    finally:
        books.close()
    print(f"job {options.job} is {moved.after} again")
    return 0
