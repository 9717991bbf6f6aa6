"""The command ``overread``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from overread.domain.errors import OverreadError
from overread.settings import Settings, read_settings

if TYPE_CHECKING:
    from overread.spool.quarantine import Entry, Quarantine

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_CONFIGS = (Path("overread.toml"), Path("/etc/overread/overread.toml"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 well, 1 something is wrong, 2 it was called wrongly."""
    options = _parser().parse_args(arguments)
    try:
        options.config = _config(options.config)
        code: int = options.run(options)
    except OverreadError as error:
        print(f"overread: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    return code


def _config(given: Path | None) -> Path | None:
    return given or next((path for path in DEFAULT_CONFIGS if path.is_file()), None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "overread",
        description="A background second reader for a hospital's PACS: studies come in by DICOM, AI results go back as "
        "SEG and SR.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="settings file (default: overread.toml, else /etc/overread/overread.toml, else built-in defaults)",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_service(commands)
    _add_questions(commands)
    _add_quarantine(commands)
    _add_simulate(commands)
    return parser


Run = Callable[[argparse.Namespace], int]


def _command(commands: Commands, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _add_service(commands: Commands) -> None:
    run = _command(commands, "run", _run, "start the service and keep it running until it is told to stop")
    run.add_argument("--role", choices=("listen", "watch", "work"), help="run one role only, in this process")
    run.add_argument("--keeper", type=int, help=argparse.SUPPRESS)
    check = _command(
        commands, "check", _check, "check settings, disk, ledger, models and each destination; say what to mend"
    )
    check.add_argument(
        "--spool",
        action="store_true",
        help="also read every file of the spool, and compare spool and ledger; changes nothing, and takes its time",
    )
    models = _command(commands, "models", _models, "list the installed models, or check them")
    models.add_argument("what", choices=("list", "check"), nargs="?", default="list")
    demo = _command(commands, "demo", _demo, "show the service at work on a generated chest CT, or your study")
    demo.add_argument("--study", type=Path, help="a folder of DICOM files to read instead of the generated phantom")
    demo.add_argument("--folder", type=Path, default=Path("demo-run"), help="where to write (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=2026, help="which generated patient (default: %(default)s)")


def _add_questions(commands: Commands) -> None:
    _command(commands, "status", _status, "show studies, jobs and deliveries at a glance")
    explain = _command(commands, "explain", _explain, "tell everything about one study, with reasons")
    explain.add_argument("study", help="Study Instance UID")
    requeue = _command(commands, "requeue", _requeue, "send a FAILED job back to be tried again")
    requeue.add_argument("job", type=int, help="job number, as status and explain show it")


def _add_quarantine(commands: Commands) -> None:
    quarantine = _command(commands, "quarantine", _quarantine_list, "see what could not be taken, and decide about it")
    parts = quarantine.add_subparsers(title="parts", required=True, metavar="PART")
    _command(parts, "list", _quarantine_list, "list what is in quarantine, one line each")
    show = _command(parts, "show", _quarantine_show, "tell all about one of them, without the patient's data")
    show.add_argument("id", help="as overread quarantine list shows it")
    release = _command(parts, "release", _quarantine_release, "judge them again, and take in those that pass now")
    drop = _command(parts, "drop", _quarantine_drop, "remove them for good")
    for part in (release, drop):
        which = part.add_mutually_exclusive_group(required=True)
        which.add_argument("ids", nargs="*", default=[], metavar="ID", help="as overread quarantine list shows it")
        which.add_argument("--all", action="store_true", help="all that is in quarantine")


def _add_simulate(commands: Commands) -> None:
    simulate = _command(commands, "simulate", _scanner, "play a part of a hospital: scanner, pacs or phantom")
    parts = simulate.add_subparsers(title="parts", required=True, metavar="PART")
    scanner = _command(parts, "scanner", _scanner, "send DICOM files, or a generated chest CT, by C-STORE")
    scanner.add_argument("folder", type=Path, nargs="?", help="folder of DICOM files (default: a generated chest CT)")
    scanner.add_argument("--seed", type=int, default=2026, help="which generated patient (default: %(default)s)")
    scanner.add_argument("--to", default="OVERREAD@127.0.0.1:11112", help="AE@HOST:PORT (default: %(default)s)")
    scanner.add_argument("--ae-title", default="SCANNER", help="calling AE title (default: %(default)s)")
    pacs = _command(parts, "pacs", _pacs, "receive and keep objects, and answer C-ECHO and C-FIND")
    pacs.add_argument("folder", type=Path, help="where it keeps what it gets")
    pacs.add_argument("--ae-title", default="PACS", help="AE title (default: %(default)s)")
    pacs.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    pacs.add_argument("--port", type=int, default=11113, help="port (default: %(default)s)")
    phantom = _command(parts, "phantom", _phantom, "write a generated chest CT with its truth into a folder")
    phantom.add_argument("folder", type=Path)
    phantom.add_argument("--seed", type=int, default=2026, help="which generated patient (default: %(default)s)")


def _settings(options: argparse.Namespace) -> Settings:
    return read_settings(options.config)


def _run(options: argparse.Namespace) -> int:
    from overread.daemon import run_all, run_role
    from overread.observe.logs import install

    settings = _settings(options)
    install(settings.observe.log, settings.observe.level, options.role or "keeper")
    return run_role(settings, options.role, options.keeper) if options.role else run_all(options.config, settings)


def _check(options: argparse.Namespace) -> int:
    from overread.checkup import check, check_spool

    print(f"settings  {options.config or 'defaults (no settings file was found)'}")
    wrong, settings = 0, _settings(options)
    for line in chain(check(settings), check_spool(settings) if options.spool else ()):
        wrong += line.wrong
        print(f"{'WRONG' if line.wrong else 'ok':<8}  {line.what}: {line.said}", flush=options.spool)
    print(f"{wrong} to mend" if wrong else "everything is well")
    return 1 if wrong else 0


def _models(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.checkup import check_model

    lines = [check_model(card) for card in wiring.cards(_settings(options))]
    for line in lines:
        print(f"{'WRONG' if line.wrong else 'ok':<8}  {line.what}: {line.said}")
    if not lines:
        print(f"no model in {', '.join(_settings(options).models)}")
    return 1 if options.what == "check" and (not lines or any(line.wrong for line in lines)) else 0


def _demo(options: argparse.Namespace) -> int:
    from overread.demo import run

    return run(options.folder, options.study, options.seed)


def _status(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.words import status

    for line in status(wiring.ledger(_settings(options)), time.time()):
        print(line)
    return 0


def _explain(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.words import explain
    from overread.ledger.views import story

    found = story(wiring.ledger(_settings(options)), options.study)
    if found is None:
        print(f"overread: no instance of study {options.study} has come; is the UID right?", file=sys.stderr)
        return 1
    for line in explain(found):
        print(line)
    return 0


def _requeue(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.ledger.deliveries import requeue

    moved = requeue(wiring.ledger(_settings(options)), options.job, "command line")
    if moved is None:
        print(f"overread: there is no FAILED job {options.job}; see overread status", file=sys.stderr)
        return 1
    print(f"job {options.job} is {moved.after} again")
    return 0


def _quarantine_list(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.quarantine import overview

    for line in overview(wiring.quarantine(_settings(options))):
        print(line)
    return 0


def _quarantine_show(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.quarantine import details

    for line in details(wiring.quarantine(_settings(options)).entry(options.id)):
        print(line)
    return 0


def _quarantine_release(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.quarantine import release

    settings = _settings(options)
    kept, store, books = wiring.quarantine(settings), wiring.spool(settings), wiring.ledger(settings)
    try:
        return _each(kept, options, lambda entry: f"taken in: {release(entry, kept, store, books)}")
    finally:
        books.close()


def _quarantine_drop(options: argparse.Namespace) -> int:
    from overread import wiring
    from overread.console.quarantine import one_line

    kept = wiring.quarantine(_settings(options))

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


def _scanner(options: argparse.Namespace) -> int:
    from overread.simulate.bench import scan

    return scan(options.folder, options.seed, options.to, options.ae_title)


def _pacs(options: argparse.Namespace) -> int:
    from overread.simulate.bench import serve_pacs

    return serve_pacs(options.folder, options.ae_title, options.host, options.port)


def _phantom(options: argparse.Namespace) -> int:
    from overread.simulate.bench import write_phantom

    files = write_phantom(options.folder, options.seed)
    print(f"{len(files)} images and their truth in {options.folder}")
    return 0
