"""How fast does overread take images in by STOW-RS, what does it cost, and is every byte there? Beside Orthanc.

    python tests/bench/stow.py --rounds 5 --json figures.json

What is sent and how it is compared is as in ingest.py; tests/bench/README.md tells. The exit code is 0 unless something
that was sent is lost or differs.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from ingest_parts.data import SIZES, make_load
from ingest_parts.measure import Cell, Measurement, measure, spread_folders
from ingest_parts.receivers import Receiver
from ingest_parts.sender import STOW
from ingest_parts.stow_receivers import STOW_RECEIVERS
from ingest_parts.table import Group, grouped, table

BAR = 2.0


def main() -> int:
    """Measure, print, and say by the exit code whether all is there."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [receiver for receiver in STOW_RECEIVERS if receiver.key in options.receivers]
    with tempfile.TemporaryDirectory(prefix="overread-stow-", dir=options.folder, ignore_cleanup_errors=True) as made:
        folder = Path(made).resolve()
        spread_folders(folder)
        loads = [make_load(n, folder / "loads" / n, min(SIZES[n][0], options.count or 10**9)) for n in options.loads]
        cells = [Cell(load, c, STOW[e]) for load in loads for c in options.connections for e in options.each]
        plan = enumerate(_plan(options, cells, chosen))
        measurements = [_measured(*what, folder / f"receiver-{number}") for number, what in plan]
    _say(options, grouped(measurements, [receiver.name for receiver in chosen]), measurements)
    return 1 if any(m.harm for m in measurements) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = [receiver.key for receiver in STOW_RECEIVERS]
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, of which the median is shown")
    parser.add_argument("--loads", nargs="+", choices=SIZES, default=["CT"])
    parser.add_argument("--receivers", nargs="+", choices=keys, default=keys, metavar="NAME", help=", ".join(keys))
    parser.add_argument("--connections", nargs="+", type=int, choices=range(1, 41), default=[1, 4], metavar="N")
    parser.add_argument("--each", nargs="+", type=int, choices=STOW, default=[1, 50], help="instances a request")
    parser.add_argument("--json", metavar="FILE", help="write the figures, too")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to work (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the receivers")
    parser.add_argument("--count", type=int, help="send fewer instances")
    return parser.parse_args()


def _plan(
    options: argparse.Namespace, cells: Sequence[Cell], chosen: Sequence[Receiver]
) -> Iterator[tuple[Receiver, Cell]]:
    for number in range(options.rounds):
        order = random.Random(f"{options.seed} {number}")
        for cell in cells:
            for receiver in order.sample(chosen, len(chosen)):
                yield receiver, cell


def _measured(receiver: Receiver, cell: Cell, folder: Path) -> Measurement:
    seen = measure(receiver, cell, folder)
    about = f"{cell.load.name} · {cell.associations} · {cell.sender} · {receiver.name}"
    print(f"{about}: {seen.trouble or f'{seen.rate:.0f}/s'} {seen.harm}", file=sys.stderr, flush=True)
    return seen


def _say(options: argparse.Namespace, groups: Sequence[Group], measurements: Sequence[Measurement]) -> None:
    said = [_verdict(group) for group in groups]
    if options.json:
        figures = {"measurements": [asdict(m) for m in measurements], "verdicts": said}
        Path(options.json).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(table(groups).replace("association", "connection"), end="\n\n")
    print("\n".join(said))


def _verdict(group: Group) -> str:
    ratio = group.ratio("overread", "Orthanc", lambda m: m.rate)
    where = f"durable ≥ {BAR} × Orthanc ({group.load}, {group.associations} × {group.sender})"
    return f"{where}: not measured" if ratio is None else f"{where}: {ratio:.2f} × {'yes' if ratio >= BAR else 'NO'}"


if __name__ == "__main__":
    sys.exit(main())
