"""The service itself: run, check, demo."""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

from overread.cli.command import Commands, command
from overread.cli.command import settings as read


def add(commands: Commands) -> None:
    run = command(commands, "run", _run, "start the service and keep it running until it is told to stop")
    run.add_argument("--role", choices=("listen", "watch", "work"), help="run one role only, in this process")
    run.add_argument("--keeper", type=int, help=argparse.SUPPRESS)
    check = command(
        commands, "check", _check, "check settings, disk, ledger, models and each destination; say what to mend"
    )
    check.add_argument(
        "--spool",
        action="store_true",
        help="also read every file of the spool, and compare spool and ledger; changes nothing, and takes its time",
    )
    demo = command(commands, "demo", _demo, "show the service at work on a generated chest CT, or your study")
    demo.add_argument("--study", type=Path, help="a folder of DICOM files to read instead of the generated phantom")
    demo.add_argument("--folder", type=Path, default=Path("demo-run"), help="where to write (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=2026, help="which generated patient (default: %(default)s)")


def _run(options: argparse.Namespace) -> int:
    from overread.daemon import run_all, run_role
    from overread.observe.logs import install

    settings = read(options)
    install(settings.observe.log, settings.observe.level, options.role or "keeper")
    return run_role(settings, options.role, options.keeper) if options.role else run_all(options.config, settings)


def _check(options: argparse.Namespace) -> int:
    from overread.checkup import check, check_spool

    print(f"settings  {options.config or 'defaults (no settings file was found)'}")
    wrong, settings = 0, read(options)
    for line in chain(check(settings), check_spool(settings) if options.spool else ()):
        wrong += line.wrong
        print(f"{'WRONG' if line.wrong else 'ok':<8}  {line.what}: {line.said}", flush=options.spool)
    print(f"{wrong} to mend" if wrong else "everything is well")
    return 1 if wrong else 0


def _demo(options: argparse.Namespace) -> int:
    from overread.demo import run

    return run(options.folder, options.study, options.seed)
