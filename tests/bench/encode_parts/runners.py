"""One run of one way to encode, in a process of its own: ``python -m encode_parts.runners WAY COUNT FOLDER …``.

Prints CPU seconds of the process, the peak of its memory and the size of what it wrote, as JSON. What is not part of
encoding (imports, tables that are read once, the mask) has happened before the clock starts.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from encode_parts import material
from overread.domain.variant import Variant
from overread.encode import encoders, gate_validator, multiframe, seal
from overread.encode.frames import Pixels
from overread.encode.layers import layers
from overread.encode.segments import describe
from overread.encode.sources import Sources, read_sources
from overread.ports import Read

SMALL = (4, 16, 16)


def overread(read: Read, sources: Sources, folder: Path, *, native: bool) -> None:
    """Header, frames and file, as the encoder does it, without the gate."""
    (layer,) = layers(read.findings)
    descriptions = [describe(segment, n, read) for n, segment in enumerate(layer.segments, 1)]
    made = multiframe.build(sources, Pixels(layer, {}), Variant(), descriptions, **_options(read, sources))
    if native:
        made.header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.write(folder / "result.dcm")


def highdicom(read: Read, sources: Sources, folder: Path) -> None:
    """Plain ``Segmentation(…)`` plus ``save_as``, given what it likes best: a label map."""
    from highdicom.seg import Segmentation

    made = Segmentation(
        source_images=sources.standins,
        pixel_array=read.findings.mask,
        segmentation_type="BINARY",
        segment_descriptions=[describe(segment, n, read) for n, segment in enumerate(read.findings.segments, 1)],
        omit_empty_frames=True,
        **_options(read, sources),
    )
    made.save_as(folder / "result.dcm")


def _options(read: Read, sources: Sources) -> dict[str, object]:
    return {"content_label": "BENCH", **seal.header(read, sources, "seg", "seg")}


def whole(read: Read, folder: Path, kind: str, *, validated: bool) -> None:
    """The encoder of ``kind`` from headers to the gate; dciodvfy is a process of its own and not counted."""
    if not validated:
        gate_validator.PROGRAM = "no such program"
    for encoder in encoders([kind]):
        encoder.encode(read, folder, [])


WAYS: dict[str, Callable[[Read, Sources, Path], None]] = {
    "overread, deflated": lambda r, s, f: overread(r, s, f, native=False),
    "overread, explicit": lambda r, s, f: overread(r, s, f, native=True),
    "highdicom": highdicom,
    "overread, headers and gate": lambda r, s, f: whole(r, f, "seg", validated=False),
    "overread, SR": lambda r, s, f: whole(r, f, "sr", validated=False),
}


def main() -> None:
    way, count, shape, folder = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4])
    run = WAYS[way]
    _warm(run, folder / "warm")
    paths = material.write_series(folder / "ct", tuple(shape))
    read = material.reading(paths, np.load(folder / f"mask-{count}.npy"))
    sources = read_sources(read.volume)
    if way == "highdicom":
        assert len(sources.standins) == shape[0]
    out = folder / "out"
    out.mkdir(exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    began = time.process_time()
    run(read, sources, out)
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    print(json.dumps({"cpu_s": spent, "peak_mb": peak, "size_mb": size}))


def _warm(run: Callable[[Read, Sources, Path], None], folder: Path) -> None:
    read = material.reading(material.write_series(folder / "ct", SMALL), material.mask(SMALL, 1))
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    run(read, read_sources(read.volume), out)


if __name__ == "__main__":
    main()
