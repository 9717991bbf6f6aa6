"""What reading a CT costs: from DICOM files to the mask on the source slices, beside the bundle's own evaluator.

    make bench-inference ARGS="--rounds 5 --json figures.json"
    make bench-inference ARGS="--rounds 1 --cases spleen"

Needs the published bundles' configs (``--bundles``, default ``../shared/data/bundles``). Each run is a process of its
own, ways take turns, medians over the rounds. CPU seconds are those of all threads of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from inference_parts import material

Figures = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    """One bundle with its weights; ``changed`` are values of its network_def, ``ways`` the runs: name → card's network.
    ``plain`` whether its own evaluator runs, too: where memory is the wall that may take more than there is."""

    bundle: str
    weights: str
    changed: dict[str, Any] = field(default_factory=dict)
    ways: dict[str, dict[str, Any]] = field(default_factory=lambda: {"overread": {}})
    plain: bool = True


BF16: dict[str, dict[str, Any]] = {"overread": {}, "overread, bfloat16": {"precision": "bfloat16"}}
CASES = {
    "spleen, decisive weights": Case("spleen_ct_segmentation", "decisive", ways=BF16),
    "spleen, random weights": Case("spleen_ct_segmentation", "random", ways=BF16),
    "wholeBody, 105 classes": Case("wholeBody_ct_segmentation", "decisive", {"init_filters": 8}),
    "spleen with 105 classes": Case("spleen_ct_segmentation", "decisive", {"out_channels": 105}, plain=False),
}


def main() -> int:
    options = _options()
    if lacking := [c.bundle for c in CASES.values() if not (options.bundles / c.bundle / "configs").is_dir()]:
        sys.exit(f"no bundle {lacking[0]} in {options.bundles}: get it from MONAI's model zoo, name it by --bundles")
    figures: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="bench-inference-", dir=options.folder) as name:
        folder = Path(name)
        material.write_ct(folder / "ct", (options.slices, options.size, options.size))
        for n, (case, what) in enumerate(CASES.items()):
            if not any(wanted in case for wanted in options.cases):
                continue
            figures[case] = _measure(folder, folder / f"case-{n}", what, options)
            print(_table(case, figures[case]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each way (default 5)")
    parser.add_argument("--cases", nargs="+", default=[""], help=f"parts of names of: {'; '.join(CASES)}")
    parser.add_argument("--bundles", type=Path, default=Path(__file__).parents[3] / "shared" / "data" / "bundles")
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, default=512, help="rows and columns")
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: its own choice)")
    parser.add_argument("--folder", type=Path, help="where 300 MB may lie for a while (default: the temporary folder)")
    parser.add_argument("--json", type=Path, help="write every figure there")
    return parser.parse_args()


def _measure(folder: Path, home: Path, case: Case, options: argparse.Namespace) -> Figures:
    source = options.bundles / case.bundle
    config = json.loads((source / "configs" / "inference.json").read_text("utf-8"))
    changed = {"network_def": {**config["network_def"], **case.changed}} if case.changed else None
    material.write_bundle(source, home / "plain", case.weights, config=changed)
    for n, network in enumerate(case.ways.values()):
        shutil.copytree(home / "plain", home / f"{n}")
        material.allow(home / f"{n}", **network)
    runs = [("plain", "plain", home / "plain")] if case.plain else []
    runs += [(way, "overread", home / f"{n}") for n, way in enumerate(case.ways)]
    found: Figures = {way: [] for way, _, _ in runs}
    for number in range(options.rounds):
        for way, runner, bundle in runs:
            told = _one(runner, bundle, folder / "ct", folder / f"{runner}.npy", options.threads)
            if case.plain and runner != "plain":
                told.update(_agreement(folder / "plain.npy", folder / "overread.npy"))
            found[way].append(told)
            print(f"round {number + 1}, {way}: {told['cpu_s']:.1f} CPU s, {told['peak_mb']:.0f} MB", file=sys.stderr)
    return found


def _one(way: str, bundle: Path, ct: Path, out: Path, threads: int) -> dict[str, Any]:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "inference_parts.runners",
        way,
        *map(str, (bundle, ct, out, threads)),
    ]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _agreement(plain: Path, ours: Path) -> dict[str, float]:
    """Voxels that differ, and the least Dice of any label that either has."""
    one, other = np.load(plain), np.load(ours)
    size = 1 + max(int(one.max()), int(other.max()))
    both = np.bincount(one[one == other], minlength=size)
    every = np.bincount(one.ravel(), minlength=size) + np.bincount(other.ravel(), minlength=size)
    dice = [2 * both[v] / every[v] for v in range(size) if every[v]]
    return {"differ": float((one != other).sum()), "dice": float(min(dice))}


def _table(case: str, figures: Figures) -> str:
    lines = [
        f"\n{case}\n",
        "| way | CPU s | of plain | wall s | peak MB | of plain | voxels that differ | least Dice |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    middle = {
        way: {k: statistics.median(r[k] for r in runs) for k in ("cpu_s", "wall_s", "peak_mb")}
        for way, runs in figures.items()
    }
    base = middle.get("plain")
    for way, runs in figures.items():
        m = middle[way]
        share = [f"{m[k] / base[k]:.2f}" if base else "–" for k in ("cpu_s", "peak_mb")]
        same = (
            f"{max(r['differ'] for r in runs):.0f} | {min(r['dice'] for r in runs):.5f}"
            if "dice" in runs[0]
            else "– | –"
        )
        low, high = min(r["cpu_s"] for r in runs), max(r["cpu_s"] for r in runs)
        cpu = f"{m['cpu_s']:.1f} ({low:.1f}–{high:.1f}, n={len(runs)})"
        lines.append(f"| {way} | {cpu} | {share[0]} | {m['wall_s']:.1f} | {m['peak_mb']:.0f} | {share[1]} | {same} |")
    return "\n".join([*lines, "", *_split(figures)])


def _split(figures: Figures) -> list[str]:
    """CPU seconds by stage, medians."""
    stages = list(dict.fromkeys(name for runs in figures.values() for name in runs[0]["stages"]))
    lines = [f"| CPU s of | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
    for stage in stages:
        spent = [[r["stages"].get(stage, 0.0) for r in runs] for runs in figures.values()]
        if max(map(max, spent)) >= 0.05:
            lines.append(f"| {stage} | {' | '.join(f'{statistics.median(s):.2f}' for s in spent)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
