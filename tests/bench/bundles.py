"""Which published bundles run? Each is added, trusted and run with random weights on a tiny volume, in its own process.

    python tests/bench/bundles.py ../shared/data/bundles
    python tests/bench/bundles.py PATH_TO_MODEL_ZOO/models --limit 600

Prints one line for each folder: ran or refused, why, its head, the seconds for loading and for reading, what was found.
Weights are not published with the configs; random ones show that a bundle runs, in the right geometry, and ends as
findings, and nothing about how good it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from overread.adopt import shelf
from overread.domain.card import Card, read_card
from overread.domain.errors import CardError, OverreadError
from overread.infer.worker import WorkerProcess
from overread.measure.findings import find
from overread.trial import read_tiny, summary

SEED = 11


@dataclass(frozen=True)
class Row:
    """One bundle: ``why`` is the reason of a refusal, else what was found."""

    name: str
    ran: bool
    head: str
    load_s: float
    read_s: float
    why: str


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="bundles, or folders of bundles")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one reading")
    options = parser.parse_args()
    print("| bundle | | head | load | read | why, or what was found with random weights |\n|---|---|---|---|---|---|")
    ran = count = 0
    for folder in _bundles(options.folders):
        row = try_bundle(folder, options.limit)
        ran, count = ran + row.ran, count + 1
        times = f"{row.load_s:.1f} s | {row.read_s:.1f} s" if row.ran else "| "
        print(f"| {row.name} | {'ran' if row.ran else 'refused'} | {row.head} | {times} | {row.why} |", flush=True)
    print(f"\n{ran} of {count} ran")


def try_bundle(source: Path, limit_s: float = 900.0) -> Row:
    """Add one bundle to a shelf of its own, give it random weights, and let it read."""
    with tempfile.TemporaryDirectory(prefix="overread-bundles-") as scratch:
        head = ""
        try:
            card = adopt(source, Path(scratch))
            head = card.task
            with _worker(card) as (worker, load_s):
                worker.card = _patient(card, limit_s)
                began = time.monotonic()
                volume, reading = read_tiny(worker, card)
                read_s = time.monotonic() - began
            notes = "".join(f"; {note}" for note in reading.notes)
            said = summary(find(reading, volume, card))
            return Row(source.name, True, head, load_s, read_s, f"{said[:100]}{notes}")
        except OverreadError as error:
            return Row(source.name, False, head, 0, 0, str(error).replace("|", "/"))


def adopt(source: Path, scratch: Path) -> Card:
    """Add and trust a bundle, with random weights where it has none; raises CardError with the reason of a refusal."""
    home = scratch / "shelf"
    home.mkdir()
    staged = shelf.stage(source, home, scratch, name="", convert=lambda *_: False)
    list(shelf.shown(staged))
    card = shelf.trust(staged)
    if not (card.folder / card.weights).is_file():
        _apart(card.folder, card.weights)
        shelf.trust(shelf.Staged(card.folder, card.folder, staged.bundle, here=True))
    return read_card(card.folder)


def random_weights(folder: Path, weights: str) -> str:
    """Write a random state dict of the bundle's own network; returns the reason when it cannot be built."""
    import torch

    from overread.infer import surroundings
    from overread.infer.recipe import Recipe

    surroundings.prepare(folder, torch.device("cpu"))
    torch.manual_seed(SEED)
    try:
        with contextlib.chdir(folder):
            _, network = Recipe(folder, torch.device("cpu")).network()
    except CardError as error:
        return str(error)
    (folder / weights).parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), folder / weights)
    return ""


def _apart(folder: Path, weights: str) -> None:
    """In a process of its own: what a bundle imports must not meet what the next one does."""
    with get_context("spawn").Pool(1) as pool:
        reason = pool.apply(random_weights, (folder, weights))
    if reason:
        raise CardError(reason)


def _patient(card: Card, limit_s: float) -> Card:
    from dataclasses import replace

    return replace(card, runtime=replace(card.runtime, timeout_s=limit_s))


@contextlib.contextmanager
def _worker(card: Card) -> Iterator[tuple[WorkerProcess, float]]:
    worker = WorkerProcess(card, "cpu", 0)
    try:
        yield worker, worker.wait_ready().seconds
    finally:
        worker.kill()


def shrink(config: Path, size: int) -> None:
    """Make the windows of a bundle's inferer small, so that a test need not wait; nothing else is touched."""
    values: dict[str, Any] = json.loads(config.read_text("utf-8"))
    roi = values["inferer"].get("roi_size")
    if roi is not None:
        values["inferer"]["roi_size"] = [size] * len(roi)
        config.write_text(json.dumps(values), "utf-8")


def _bundles(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        if (folder / "configs").is_dir():
            yield folder
        else:
            yield from sorted(p for p in folder.iterdir() if (p / "configs").is_dir())


if __name__ == "__main__":
    main()
