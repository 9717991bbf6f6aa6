"""One run of one way, in a process of its own: ``python -m inference_parts.runners WAY BUNDLE CT OUT THREADS``.

Writes the mask (slices, rows, columns) to OUT and prints, as JSON, wall and CPU seconds from the first DICOM file to
the mask, those of each stage, and the peak of the process's memory. Imports and loading the network come before.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Mask = NDArray[Any]


class Stages:
    """CPU seconds by stage; what a stage spends inside another, or in threads meanwhile, is the inner one's."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._open: list[float] = []
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done meanwhile is spent on ``name``: in a thread beside the main one, by that thread alone."""
        main = threading.current_thread() is threading.main_thread()
        clock = time.process_time if main else time.thread_time
        began = clock()
        if main:
            self._open.append(0.0)
        try:
            yield
        finally:
            took = clock() - began
            with self._lock:
                inner = self._open.pop() if main else 0.0
                self.spent[name] = self.spent.get(name, 0.0) + took - inner
                if self._open:
                    self._open[-1] += took

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, each call of it spent on ``name``."""

        def run(*args: Any, **options: Any) -> Any:
            with self.stage(name):
                return work(*args, **options)

        return run


def plain(bundle: Path, ct: Path, stages: Stages) -> Callable[[], Mask]:
    """The bundle's own evaluator on its own readers, as its config says; only its data and its savers are exchanged."""
    from monai.bundle import ConfigParser

    config = ConfigParser.load_config_file(str(bundle / "configs" / "inference.json"))
    config.update(bundle_root=str(bundle), handlers=[])
    config["dataset"]["data"] = [{"image": str(ct)}]
    config["dataloader"]["num_workers"] = 0
    post = config["postprocessing"]["transforms"]
    config["postprocessing"]["transforms"] = [t for t in post if not t["_target_"].startswith("Save")]
    parser = ConfigParser(config)
    parser.parse()
    evaluator = parser.get_parsed_content("evaluator")
    parser.get_parsed_content("initialize")
    network = parser.get_parsed_content("network")
    network.forward = stages.timed("network", network.forward)
    for section in ("preprocessing", "postprocessing"):
        for transform in parser.get_parsed_content(section).transforms:
            _time(transform, stages)

    def run() -> Mask:
        with stages.stage("rest"):
            evaluator.run()
            found = evaluator.state.output[0]["pred"]
            return np.ascontiguousarray(np.asarray(found)[0].transpose(2, 1, 0)).astype(np.uint8)

    return run


def overread(bundle: Path, ct: Path, stages: Stages) -> Callable[[], Mask]:
    """What the service does: its loader, and the engine that a worker process runs."""
    from overread.domain.candidates import candidates
    from overread.domain.card import read_card
    from overread.infer import deciding, sliding
    from overread.infer.bundle import Bundle
    from overread.infer.engines import Grid
    from overread.load.series import load_files
    from overread.spool.header import read_file

    model: Any = Bundle(read_card(bundle), "cpu")
    model._way.network.forward = stages.timed("network", model._way.network.forward)
    for t in getattr(model._way.preprocessing, "transforms", ()):
        _time(t, stages)
    deciding.decided = stages.timed("labels, back on the source", deciding.decided)
    sliding._Sums.add = stages.timed("sums of windows", sliding._Sums.add)  # type: ignore[method-assign]

    def run() -> Mask:
        with stages.stage("load"):
            paths = sorted(ct.glob("*.dcm"))
            found = [replace(read_file(path), path=str(path)) for path in paths]
            stack = next(iter(candidates(found, "volume", None))).stack(read_card(bundle).accepts)
            volume = load_files(stack)
        with stages.stage("rest"):
            seen = model.read([Grid(volume.voxels, volume.affine)], lambda _: None)
        assert seen.label_map is not None
        return np.asarray(seen.label_map)

    return run


WAYS: dict[str, Callable[[Path, Path, Stages], Callable[[], Mask]]] = {"plain": plain, "overread": overread}


def _time(transform: Any, stages: Stages) -> None:
    kind = type(transform)
    name = kind.__name__.removesuffix("d")
    transform.__class__ = type(kind.__name__, (kind,), {"__call__": stages.timed(name, kind.__call__)})


def main() -> None:
    way, bundle, ct, out, threads = sys.argv[1:]
    warnings.simplefilter("ignore")
    import torch

    if int(threads):
        torch.set_num_threads(int(threads))
    stages = Stages()
    run = WAYS[way](Path(bundle), Path(ct), stages)
    began, cpu = time.monotonic(), time.process_time()
    mask = run()
    told = {"wall_s": time.monotonic() - began, "cpu_s": time.process_time() - cpu}
    np.save(out, mask)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**told, "peak_mb": peak, "stages": stages.spent, "share": float((mask > 0).mean())}))


if __name__ == "__main__":
    main()
