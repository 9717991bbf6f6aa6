"""What a model throws, in the words that a keeper understands: of which kind, what, and where in its code."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from overread.domain.errors import CardError, Unfit
from overread.infer.protocol import Failed

MEMORY_SHORT = ("not enough memory", "out of memory", "bad_alloc", "bad alloc")
# What torch raises when a GPU has failed: its context is broken, and so is every later call in this process.
BROKEN_DEVICE = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS", "CUDNN_STATUS", "device-side assert")
FRAMES, LONGEST = 3, 1000  # how much is told: innermost places, and characters of a text of ours
OURS = f"{Path(__file__).resolve().parents[1]}{os.sep}"


class Stopped(BaseException):
    """Nobody wants the answer any more. No Exception, so that a model that catches those cannot go on."""


def failure(error: BaseException, folder: Path) -> Failed:
    """What is told of ``error``; ``folder`` is the model's."""
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    said = str(root)
    if isinstance(error, Stopped):
        return Failed("stopped", "nobody wants the answer any more")
    if isinstance(error, CardError | Unfit):
        return Failed("card" if isinstance(error, CardError) else "unfit", str(error)[:LONGEST])
    text = f"{type(root).__name__}: {said}".splitlines()[0][:300]
    return Failed(_kind(root, said), text, _place(root, folder))


def _kind(root: BaseException, said: str) -> str:
    out_of_memory = isinstance(root, MemoryError) or "OutOfMemory" in type(root).__name__
    if out_of_memory or any(words in said for words in MEMORY_SHORT):
        return "memory"
    if type(root).__name__ == "AcceleratorError" or any(words in said for words in BROKEN_DEVICE):
        return "device"
    return "model"


def _place(root: BaseException, folder: Path) -> str:
    """Where it was thrown: the last places in the model's own code; without any, the last that are not ours."""
    frames = traceback.extract_tb(root.__traceback__)
    homes = (f"{folder}{os.sep}", f"{folder.resolve()}{os.sep}")
    own = [f for f in frames if f.filename.startswith(homes)] or [f for f in frames if not f.filename.startswith(OURS)]
    return ", ".join(f"{_named(f.filename, homes)}:{f.lineno} in {f.name}" for f in own[-FRAMES:])[:LONGEST]


def _named(file: str, homes: tuple[str, ...]) -> str:
    """A file by its place in the model's folder, or by its last two names."""
    for home in homes:
        if file.startswith(home):
            return file.removeprefix(home)
    return str(Path(*Path(file).parts[-2:]))
