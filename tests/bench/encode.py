"""What encoding costs: a CT of 512 × 512 × 300 with 1, 20 and 104 segments, beside highdicom and dcmqi.

    make bench-encode ARGS="--rounds 5 --json figures.json"

CPU seconds, medians over rounds; each run is a process of its own, ways take turns. dcmqi runs where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from encode_parts import dcmqi, material

OURS = ["overread, deflated", "overread, explicit", "highdicom", "overread, headers and gate"]
DCMQI, REPORT = "dcmqi", "overread, SR"


def main() -> int:
    options = _options()
    figures: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-encode-", dir=options.folder) as name:
        folder = Path(name)
        shape = (options.slices, options.size, options.size)
        material.write_series(folder / "ct", shape)
        for count in options.segments:
            np.save(folder / f"mask-{count}.npy", material.mask(shape, count))
            dcmqi.prepare(folder, count)
            figures[str(count)] = _measure(folder, shape, count, options.rounds)
            (folder / f"mask-{count}.nrrd").unlink()
    print(_table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each way (default 5)")
    parser.add_argument("--segments", type=int, nargs="+", default=[1, 20, 104])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512, help="rows and columns")
    parser.add_argument("--folder", type=Path, help="where 700 MB may lie for a while (default: the temporary folder)")
    parser.add_argument("--json", type=Path, help="write every figure there")
    return parser.parse_args()


def _measure(folder: Path, shape: tuple[int, int, int], count: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    ways = [*OURS, *([DCMQI] if dcmqi.program() else []), *([REPORT] if count > 20 else [])]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for n in range(rounds):
        for way in ways:
            found[way].append(dcmqi.run(folder, count) if way == DCMQI else _one(way, folder, shape, count))
            print(f"{count} segments, round {n + 1}, {way}: {found[way][-1]['cpu_s']:.2f} CPU s", file=sys.stderr)
    return found


def _one(way: str, folder: Path, shape: tuple[int, int, int], count: int) -> dict[str, float]:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "encode_parts.runners", way, str(count), json.dumps(shape), str(folder)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _table(figures: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    lines = [
        "| segments | way | CPU s | of highdicom | of dcmqi | peak MB | written MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for count, ways in figures.items():
        middle = {way: statistics.median(run["cpu_s"] for run in runs) for way, runs in ways.items()}
        for way, runs in ways.items():
            low, high = min(r["cpu_s"] for r in runs), max(r["cpu_s"] for r in runs)
            of_dcmqi = f"{middle[way] / middle[DCMQI]:.2f}" if DCMQI in middle else "–"
            peak = statistics.median(run["peak_mb"] for run in runs)
            lines.append(
                f"| {count} | {way} | {middle[way]:.2f} ({low:.2f}–{high:.2f}, n={len(runs)}) "
                f"| {middle[way] / middle['highdicom']:.2f} | {of_dcmqi} | {peak:.0f} | {runs[0]['size_mb']:.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
