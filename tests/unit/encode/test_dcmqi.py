"""dcmqi, which 3D Slicer and MITK read segmentations by, gets the mask back from every variant that it is given."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from overread.encode import encoders
from overread.ports import Read

from .conftest import SHAPE, SPACING_MM, inflated

Reading = Callable[..., Read]
ROOT = Path(__file__).resolve().parents[3]


def program(name: str) -> str:
    """Where tests/install-peers.sh puts it, or on the path."""
    ours = ROOT / ".venv-dcmqi" / "bin" / name
    found = str(ours) if ours.exists() else shutil.which(name)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} must be installed in continuous integration (make peers)")
    if found is None:
        pytest.skip(f"{name} is not installed (pip install dcmqi, in an environment of its own)")
    return found


def read_nrrd(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    """(slices, rows, columns) and the fields of the header."""
    import gzip

    head, _, data = path.read_bytes().partition(b"\n\n")
    told = dict(line.split(": ", 1) for line in head.decode("latin-1").splitlines() if ": " in line)
    data = gzip.decompress(data) if told["encoding"] in ("gzip", "gz") else data
    dtype = {"unsigned char": np.uint8, "short": np.int16, "unsigned short": np.uint16}.get(told["type"], np.int16)
    sizes = [int(n) for n in told["sizes"].split()][::-1]
    return np.frombuffer(data, dtype).reshape(sizes), told


@pytest.mark.parametrize("variant", ["binary", "binary-full", "labelmap", "labelmap-rle"])
def test_the_mask_comes_back(reading: Reading, out: Path, tmp_path: Path, variant: str) -> None:
    tool = program("segimage2itkimage")
    read = replace(reading(), variants=(variant,))
    (encoder,) = encoders(["seg"])
    (result,) = encoder.encode(read, out, [])
    folder = tmp_path / "itk"
    folder.mkdir()
    command = [tool, "--inputDICOM", str(out / result.path), "--outputDirectory", str(folder), "-t", "nrrd"]
    done = subprocess.run([*command, "--mergeSegments"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    images = sorted(folder.glob("*.nrrd"))
    assert len(images) == 1
    found, told = read_nrrd(images[0])
    origin = [float(v) for v in told["space origin"].strip("()").split(",")]
    first = round((origin[2] - 100.0) / SPACING_MM[0])
    whole = np.zeros(SHAPE, np.uint8)
    directions = [float(v.strip("()").split(",")[2]) for v in told["space directions"].split(" ")]
    placed = found if directions[2] > 0 else found[::-1]
    low = first if directions[2] > 0 else first - len(found) + 1
    whole[low : low + len(placed)] = placed
    assert np.array_equal(whole, read.findings.mask)
    assert inflated(out / result.path).exists()
