"""overread quarantine: see what could not be taken, and decide about it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from overread.cli.command import Commands, command
from overread.cli.command import settings as read
from overread.domain.errors import OverreadError

if TYPE_CHECKING:
    from overread.spool.quarantine import Entry, Quarantine


def add(commands: Commands) -> None:
    quarantine = command(commands, "quarantine", _quarantine_list, "see what could not be taken, and decide about it")
    parts = quarantine.add_subparsers(title="parts", required=True, metavar="PART")
    command(parts, "list", _quarantine_list, "list what is in quarantine, one line each")
    show = command(parts, "show", _quarantine_show, "tell all about one of them, without the patient's data")
    show.add_argument("id", help="as overread quarantine list shows it")
    release = command(parts, "release", _quarantine_release, "judge them again, and take in those that pass now")
    drop = command(parts, "drop", _quarantine_drop, "remove them for good")
    for part in (release, drop):
        which = part.add_mutually_exclusive_group(required=True)
        which.add_argument("ids", nargs="*", default=[], metavar="ID", help="as overread quarantine list shows it")
        which.add_argument("--all", action="store_true", help="all that is in quarantine")


def _quarantine_list(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.quarantine import overview

    for line in overview(wiring.quarantine(read(options))):
        print(line)
    return 0


def _quarantine_show(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.quarantine import details

    for line in details(wiring.quarantine(read(options)).entry(options.id)):
        print(line)
    return 0


def _quarantine_release(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.quarantine import release

    settings = read(options)
    kept, store, books = wiring.quarantine(settings), wiring.spool(settings), wiring.ledger(settings)
    try:
        return _each(kept, options, lambda entry: f"taken in: {release(entry, kept, store, books)}")
    finally:
        books.close()


def _quarantine_drop(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.quarantine import one_line

    kept = wiring.quarantine(read(options))

    def drop(entry: Entry) -> str:
        kept.drop(entry.id)
        return f"removed for good: {one_line(entry)}"

    return _each(kept, options, drop)


def _each(kept: Quarantine, options: argparse.Namespace, decide: Callable[[Entry], str]) -> int:
    names = [entry.id for entry in kept.entries()] if options.all else list(dict.fromkeys(options.ids))
    if not names:
        print("nothing is in quarantine")
    code = 0
    for name in names:
        try:
            print(f"{name}  {decide(kept.entry(name))}")
        except OverreadError as error:
            print(f"overread: {name}: {error}", file=sys.stderr)
            code = 1
    return code
