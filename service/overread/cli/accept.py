"""overread accept: a site's acceptance test, with a report of what was proven."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from overread.cli.command import Commands, command, settings


def add(commands: Commands) -> None:
    part = command(commands, "accept", _accept, "send a phantom to the site's own PACS and report what is proven")
    part.add_argument("--destination", action="append", default=[], metavar="NAME", help="only this one (repeatable)")
    part.add_argument("--whole", action="store_true", help="also send one through the running service, see [canary]")
    part.add_argument("--report", type=Path, default=Path("acceptance.html"), help="HTML page (default: %(default)s)")
    part.add_argument("--wait", type=float, default=300.0, metavar="S", help="for each proof (default: %(default)g s)")


def _accept(options: argparse.Namespace) -> int:
    from overread.accept import accept
    from overread.console.acceptance import page

    read = settings(options)
    known = {to.name: to for to in read.deliver}
    unknown = [name for name in options.destination if name not in known]
    if unknown or not (known or options.whole):
        what = f"no destination is named {unknown[0]!r}" if unknown else "no destination is configured: add [[deliver]]"
        print(f"overread: {what}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in dict.fromkeys(options.destination or known)]
    seen = accept(read, chosen, options.wait, whole=options.whole)
    for step in seen.steps:
        print(f"{step.verdict.value:<11} {step.place}: {step.what}: {step.said}")
    made_at = datetime.now().astimezone().isoformat(" ", "seconds")
    options.report.write_text(page(seen, made_at), "utf-8")
    print(f"{seen.summary}; report in {options.report}")
    return 0 if seen.passed else 1
