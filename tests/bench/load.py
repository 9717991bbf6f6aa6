"""How long it takes until 200 uncompressed CT slices of 512 × 512 are an array, and what that costs.

    python tests/bench/load.py [--rounds 7] [--slices 200]

Each reader runs in this process, on files in the page cache, readers in turn so that a busy moment hits all alike. The
least of the rounds is shown: wall and CPU time. What a reader does beyond copying pixels is said beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from overread.domain.study import Instance
from overread.load.series import load
from overread.simulate.phantom import Grid, chest_phantom
from overread.simulate.study import write_study
from overread.spool import Spool
from overread.spool.header import read_file

Reader = Callable[[], object]
SIZE = 512


def overread(paths: list[Path], instances: list[Instance], folder: Path) -> Reader:
    """Order, gaps, tilt, affine, bits, padding, rescale, floor at −1024 HU: an int16 volume ready for a model."""
    spool = Spool(folder / "spool", durable=False)
    return lambda: load(spool, instances)


def dicomsdl(paths: list[Path], *_: object) -> Reader:
    """Stored values only, no rescale, no geometry."""
    import dicomsdl as sdl

    def read() -> object:
        voxels = np.empty((len(paths), SIZE, SIZE), np.int16)
        for k, path in enumerate(paths):
            sdl.open(str(path)).copyFrameData(0, voxels[k])
        return voxels

    return read


def dicomsdl_hu(paths: list[Path], *_: object) -> Reader:
    """The same with its own rescale."""
    import dicomsdl as sdl

    return lambda: np.stack([sdl.open(str(path)).pixelData() for path in paths])


def pydicom_frombuffer(paths: list[Path], *_: object) -> Reader:
    """Named tags only, the bytes as they are, rescaled to int16."""
    import pydicom

    tags = ["Rows", "Columns", "RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "PixelData"]

    def read() -> object:
        voxels = np.empty((len(paths), SIZE, SIZE), np.int16)
        for k, path in enumerate(paths):
            ds = pydicom.dcmread(path, specific_tags=tags)  # type: ignore[arg-type]
            pixels = np.frombuffer(ds.PixelData, "<i2").reshape(SIZE, SIZE)
            np.add(pixels, np.int16(ds.RescaleIntercept), out=voxels[k])
        return voxels

    return read


def simpleitk(paths: list[Path], *_: object) -> Reader:
    """Its series reader: rescaled, with geometry from the first and the last file."""
    import SimpleITK

    def read() -> object:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames([str(p) for p in paths])
        return SimpleITK.GetArrayViewFromImage(reader.Execute())

    return read


def monai_pydicom(paths: list[Path], *_: object) -> Reader:
    """MONAI's PydicomReader on the folder."""
    from monai.data import PydicomReader

    reader = PydicomReader()
    return lambda: reader.get_data(reader.read(str(paths[0].parent)))


READERS = (overread, dicomsdl, dicomsdl_hu, pydicom_frombuffer, simpleitk, monai_pydicom)


def series(folder: Path, slices: int) -> list[Path]:
    """A phantom, computed coarsely and written at full size."""
    from dataclasses import replace as changed

    coarse = chest_phantom(1, Grid((slices, 128, 128), (1.5, 2.8, 2.8)))
    full = Grid((slices, SIZE, SIZE), (1.5, 0.7, 0.7))
    hu = coarse.hu.repeat(4, 1).repeat(4, 2)
    return write_study(changed(coarse, hu=hu, grid=full), folder, seed=1)


def measure(readers: dict[str, Reader], rounds: int) -> dict[str, tuple[float, float]]:
    """(wall, CPU) in ms of each, the least of the rounds."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, read in readers.items():
            wall, cpu = time.perf_counter(), time.process_time()
            read()
            found[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: (min(w for w, _ in times) * 1e3, min(c for _, c in times) * 1e3) for name, times in found.items()}


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--slices", type=int, default=200)
    asked = options.parse_args()
    with TemporaryDirectory() as scratch:
        paths = series(Path(scratch) / "series", asked.slices)
        instances = [replace(read_file(p), path=str(p)) for p in paths]
        readers: dict[str, Reader] = {}
        for make in READERS:
            with suppress(ImportError):
                readers[make.__name__] = make(paths, instances, Path(scratch))  # type: ignore[operator]
        times = measure(readers, asked.rounds)
    fastest = min(cpu for name, (_, cpu) in times.items() if name != "overread")
    print("| reader | wall ms | CPU ms | CPU, of the fastest | what it does |\n|---|---|---|---|---|")
    for make in READERS:
        if make.__name__ in times:
            wall, cpu = times[make.__name__]
            what = " ".join((make.__doc__ or "").split())
            print(f"| {make.__name__} | {wall:.0f} | {cpu:.0f} | {cpu / fastest:.2f} × | {what} |")


if __name__ == "__main__":
    main()
