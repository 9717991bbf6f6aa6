"""overread deliveries: what is on its way, dead letters with their reason, and decisions about them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from overread.cli.command import Commands, command
from overread.cli.command import settings as read
from overread.domain.errors import OverreadError
from overread.domain.result import DeliveryState

if TYPE_CHECKING:
    from overread.ledger import Ledger

MOST_LISTED = 200


def add(commands: Commands) -> None:
    deliveries = command(commands, "deliveries", _list, "see what is on its way, and decide about dead letters")
    parts = deliveries.add_subparsers(title="parts", required=True, metavar="PART")
    listing = command(parts, "list", _list, "list deliveries, the newest first, with the reason and the next try")
    listing.add_argument("--destination", default="", help="only those to this destination")
    states = [s.value.lower() for s in DeliveryState]
    listing.add_argument("--state", default="", type=str.lower, choices=states, help="only those in this state")
    listing.add_argument("--limit", type=int, default=MOST_LISTED, help="at most so many; 0: all (%(default)s)")
    retry = command(parts, "retry", _retry, "have dead letters tried again, once their cause is mended")
    drop = command(parts, "drop", _drop, "decide that they are not to be sent; retry takes that back")
    for part in (retry, drop):
        part.add_argument("ids", nargs="*", type=int, metavar="ID", help="as overread deliveries list shows it")
    retry.add_argument("--all", action="store_true", help="every dead letter, or every one of --destination")
    retry.add_argument("--destination", default="", help="with --all: only those to this destination")
    sweep = command(parts, "sweep", _sweep, "ask now for what was proven in the last days; what is lost is sent again")
    sweep.add_argument("--destination", default="", help="only this destination")


def _list(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.deliveries import one_line, standings
    from overread.ledger import destinations, letters

    books = wiring.ledger(read(options))
    try:
        for line in standings(books, time.time()):
            print(line)
        closed_to = {s.name: s for s in destinations.stands(books) if s.is_open}
        state, most = options.state.upper(), max(0, options.limit)
        found = letters.letters(books, destination=options.destination, state=state, limit=most)
        for letter in found:
            print(one_line(letter, closed_to))
        if not found:
            print("no delivery" + (" like that" if options.destination or state else " yet"))
        elif most and len(found) == most:
            print(f"the newest {most}; --limit 0 lists all")
    finally:
        books.close()
    return 0


def _retry(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.ledger import letters

    if bool(options.ids) == options.all or (options.destination and not options.all):
        print("overread: name deliveries, or say --all, with --destination or without", file=sys.stderr)
        return 2
    books = wiring.ledger(read(options))

    def again(one: int) -> str:
        letter, moved = letters.retry(books, one, "command line")
        job = f"; job {letter.row.job_id} is {moved.after} again" if moved else ""
        return f"{letter.kind} of job {letter.row.job_id} to {letter.row.destination} is tried again{job}"

    # A variant may have been taken along by another one of the same: then it is on its way, and no fault.
    names = letters.dead(books, options.destination) if options.all else list(dict.fromkeys(options.ids))
    return _each(books, names, again, missing="there is no dead letter", lenient=options.all)


def _drop(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.ledger import letters

    if not options.ids:
        print("overread: name the deliveries to drop, as overread deliveries list shows them", file=sys.stderr)
        return 2
    books = wiring.ledger(read(options))

    def drop(one: int) -> str:
        row = (letter := letters.drop(books, one, "command line")).row
        back = f"overread deliveries retry {one} takes that back"
        maybe = " (it may be there already)" if row.exposed else ""
        return f"dropped: {letter.kind} of job {row.job_id} is not sent to {row.destination}{maybe}; {back}"

    return _each(books, list(dict.fromkeys(options.ids)), drop, missing="nothing to drop")


def _each(
    books: Ledger, names: list[int], decide: Callable[[int], str], *, missing: str, lenient: bool = False
) -> int:
    code = 0
    try:
        if not names:
            print(missing)
        for name in names:
            try:
                print(f"{name:>6}  {decide(name)}")
            except OverreadError as error:
                if not lenient:
                    print(f"overread: {name}: {error}", file=sys.stderr)
                    code = 1
    finally:
        books.close()
    return code


def _sweep(options: argparse.Namespace) -> int:
    from overread import wiring

    settings = read(options)
    wanted = [to for to in settings.deliver if options.destination in ("", to.name)]
    if not wanted:
        print(f"overread: no destination is named {options.destination!r}", file=sys.stderr)
        return 1
    watch = wiring.Watch(settings, wiring.ledger(settings), wiring.spool(settings), (), lambda _: None)
    code = 0
    try:
        for to in wanted:
            try:
                swept = wiring.sweep(watch, to).now(time.time())
                print(f"{to.name}: {swept.asked} asked for, {swept.there} there, {swept.lost} lost and sent again")
            except OverreadError as error:
                print(f"overread: {to.name}: {error}", file=sys.stderr)
                code = 1
    finally:
        watch.books.close()
    return code
