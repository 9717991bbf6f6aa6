"""Questions about studies and jobs: status, explain, replay, requeue."""

from __future__ import annotations

import argparse
import sys
import time

from overread.cli.command import Commands, command
from overread.cli.command import settings as read


def add(commands: Commands) -> None:
    command(commands, "status", _status, "show studies, jobs and deliveries at a glance")
    explain = command(commands, "explain", _explain, "tell everything about one study, with reasons")
    explain.add_argument("study", help="Study Instance UID")
    replay = command(commands, "replay", _replay, "make a job's results again and tell what, if anything, differs")
    replay.add_argument("job", type=int, help="job number, as status and explain show it")
    requeue = command(commands, "requeue", _requeue, "send a FAILED job back to be tried again")
    requeue.add_argument("job", type=int, help="job number, as status and explain show it")


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


def _requeue(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.ledger.deliveries import requeue

    moved = requeue(wiring.ledger(read(options)), options.job, "command line")
    if moved is None:
        print(f"overread: there is no FAILED job {options.job}; see overread status", file=sys.stderr)
        return 1
    print(f"job {options.job} is {moved.after} again")
    return 0
