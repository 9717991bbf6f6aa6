"""How fast does overread take images in, how much does it cost, and is every byte there? Beside the peers, in one run.

    python tests/bench/ingest.py --rounds 5 --json figures.json

tests/bench/README.md says what is measured and how to read it. The exit code is 0 unless something that was sent is
lost or differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from ingest_parts import sender
from ingest_parts.data import SIZES, Load, make_load
from ingest_parts.measure import Cell, Measurement, measure, spread_folders
from ingest_parts.receivers import RECEIVERS, SEARCH_PATH, Receiver
from ingest_parts.table import Group, grouped, table, verdicts

NAGLE_COUNT = 100


def main() -> int:
    """Measure, print, and say by the exit code whether all is there."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [receiver for receiver in RECEIVERS if receiver.key in options.receivers]
    with tempfile.TemporaryDirectory(prefix="overread-ingest-", dir=options.folder, ignore_cleanup_errors=True) as made:
        folder = Path(made).resolve()
        spread_folders(folder)
        cells = _cells(options, folder)
        plan = enumerate(_plan(options, cells, chosen))
        # A name of its own for each: ext4 places folders by their names, and shall not use the same place again.
        measurements = [_measured(*what, folder / f"receiver-{number}") for number, what in plan]
    groups = grouped(measurements, [receiver.name for receiver in chosen])
    _say(options, groups, measurements)
    return 1 if any(m.harm for m in measurements) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = [receiver.key for receiver in RECEIVERS]
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, of which the median is shown")
    parser.add_argument("--loads", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--receivers", nargs="+", choices=keys, default=keys, metavar="NAME", help=", ".join(keys))
    parser.add_argument("--associations", nargs="+", type=int, choices=range(1, 41), default=[1, 4], metavar="N")
    parser.add_argument("--sender", choices=("blast", "storescu", "both"), default="both")
    parser.add_argument(
        "--nagle", action="store_true", help="also send 100 CT with the Nagle algorithm on, as DCMTK does"
    )
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write the figures; without FILE print them"
    )
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to work (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the receivers")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _cells(options: argparse.Namespace, folder: Path) -> list[Cell]:
    senders = [options.sender] if options.sender != "both" else ["blast", "storescu"]
    loads = {name: _load(name, options.count, folder) for name in options.loads}
    cells = [Cell(load, n, by) for load in loads.values() for n in options.associations for by in senders]
    if options.nagle:
        count = min(NAGLE_COUNT, options.count or NAGLE_COUNT)
        cells.append(Cell(make_load("CT", folder / "loads" / "nagle", count), 1, sender.NAGLE))
    return cells


def _load(name: str, count: int | None, folder: Path) -> Load:
    _progress(f"generating {name}")
    return make_load(name, folder / "loads" / name, min(SIZES[name][0], count or SIZES[name][0]))


def _plan(
    options: argparse.Namespace, cells: Sequence[Cell], chosen: Sequence[Receiver]
) -> Iterator[tuple[Receiver, Cell, str]]:
    for number in range(options.rounds):
        order = random.Random(f"{options.seed} {number}")
        for cell in cells:
            for receiver in order.sample(chosen, len(chosen)):
                yield receiver, cell, f"round {number + 1}/{options.rounds}"


def _measured(receiver: Receiver, cell: Cell, when: str, folder: Path) -> Measurement:
    seen = measure(receiver, cell, folder)
    said = seen.trouble or f"{seen.rate:.0f}/s"
    about = f"{when} · {cell.load.name} · {cell.associations} · {cell.sender} · {receiver.name}"
    _progress(f"{about}: {said}{' · ' + seen.harm if seen.harm else ''}")
    return seen


def _say(options: argparse.Namespace, groups: Sequence[Group], measurements: Sequence[Measurement]) -> None:
    said = verdicts(groups)
    figures = {
        "machine": _machine(),
        "measurements": [_figures(m) for m in measurements],
        "verdicts": [{"bar": bar, "reached": reached} for bar, reached in said],
    }
    if options.json == "-":
        print(json.dumps(figures, indent=1, ensure_ascii=False))
        return
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(" · ".join(f"{name} {value}" for name, value in _machine().items()), end="\n\n")
    print(table(groups), end="\n\n")
    for bar, _ in said:
        print(bar)


def _figures(m: Measurement) -> dict[str, object]:
    rates = {} if m.trouble else {"instances_per_s": round(m.rate, 1), "cpu_ms_per_instance": round(m.cpu_ms, 3)}
    return asdict(m) | rates


def _machine() -> dict[str, str]:
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "Linux": platform.release(),
        "Python": platform.python_version(),
        **{name: version(name) for name in ("overread", "pynetdicom")},
        "DCMTK": _version("storescp"),
        "Orthanc": _version("Orthanc"),
    }


def _version(program: str) -> str:
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, env={"PATH": SEARCH_PATH}
        ).stdout
    except OSError:
        return "missing"
    numbers = [word for word in said.replace("$", "").split() if word.lstrip("v")[:1].isdigit()]
    return numbers[0] if numbers else "unknown"


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
