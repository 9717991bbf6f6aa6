"""A card for each kind of pipeline, with the smallest models that show it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tiny import FEATURES, SECOND, digest, examples, onnx_net, write_card

from overread.domain.card import Card

MEASURED = """
features = ["firstorder", "shape.sphericity", "glcm.joint_entropy"]
diameters = true
"""
SCALE = """
[[preprocess]]
name = "ScaleIntensityRange"
a_min = -1000
a_max = 1000
b_min = -1.0
b_max = 1.0
"""


def filtered(folder: Path) -> Card:
    """Preprocessing → model → measurements: turned, cropped, resampled, scaled, and three kinds of filters."""
    onnx_net(folder / "net.onnx", threshold=150.0)
    steps = """
[[preprocess]]
name = "Orientation"
axcodes = "RAS"
[[preprocess]]
name = "CropForeground"
margin = 1
[[preprocess]]
name = "Spacing"
pixdim = [6.0, 6.0, 6.0]
mode = "bilinear"
[[preprocess]]
name = "GaussianSmooth"
sigma = 0.5
[[preprocess]]
name = "skimage.restoration.denoise_wavelet"
sigma = 5.0
[[preprocess]]
name = "skimage.filters.butterworth"
cutoff_frequency_ratio = 0.45
high_pass = false
"""
    body = f"""{steps}{SCALE}
[inferer]
roi = [24, 24, 24]
overlap = 0.25
[postprocess]
keep_largest = ["Bright"]
fill_holes = ["Bright"]
"""
    write_card(folder, "onnx", body, weights="net.onnx")
    return reread(folder, 'name = "Bright"', 'name = "Bright"' + MEASURED)


def reread(folder: Path, old: str, new: str) -> Card:
    """The card with one piece of its text exchanged."""
    from overread.domain.card import read_card

    path = folder / "card.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    return read_card(folder)


def stage(name: str, label: str, value: int, folder: Path, *, within: str = "", tables: str = SCALE) -> str:
    region = f'within = "{within}"\nmargin_mm = 12.0\noutside = -1000.0' if within else ""
    return f"""
[[stages]]
name = "{name}"
engine = "onnx"
weights = "{name}.onnx"
weights_sha256 = "{digest(folder / f"{name}.onnx")}"
labels = ["{label}"]
{region}
{tables.replace("[[preprocess]]", "[[stages.preprocess]]")}
[stages.postprocess]
channels = [0, {value}]
"""


def two_stages(folder: Path) -> Card:
    """The second model sees only the box around what the first one found."""
    onnx_net(folder / "body.onnx", threshold=-399.5)
    onnx_net(folder / "bone.onnx", threshold=150.0)
    body = stage("body", "Bright", 1, folder) + stage("bone", "Brighter", 2, folder, within="Bright")
    return write_card(folder, "stages", body, labels=SECOND)


def classified(folder: Path) -> Card:
    """A model finds regions, a random forest judges the measured features of each."""
    from sklearn.ensemble import RandomForestClassifier
    from skops.io import dump

    onnx_net(folder / "regions.onnx", threshold=150.0)
    x, y = examples()
    dump(RandomForestClassifier(8, random_state=0).fit(x, y + 1), folder / "forest.skops")
    body = stage("regions", "Bright", 1, folder).replace("[[stages]]\n", "[[stages]]\nkeep = false\n")
    body += f"""
[[stages]]
name = "verdict"
engine = "sklearn"
task = "classification"
weights = "forest.skops"
weights_sha256 = "{digest(folder / "forest.skops")}"
within = "Bright"
each = true
labels = ["Brighter", "Third"]
features = {json.dumps(FEATURES)}
"""
    third = SECOND.replace("value = 2", "value = 3").replace("Brighter", "Third")
    return write_card(folder, "stages", body, labels=SECOND + third)


def recurrent(folder: Path) -> Card:
    """A network with memory over the frames of a film: brighter than half of the running mean of what came before."""
    import torch

    class Memory(torch.nn.Module):
        def forward(self, film: torch.Tensor) -> torch.Tensor:
            seen = film[:, 0]
            answers = []
            for t in range(film.shape[1]):
                seen = 0.5 * seen + 0.5 * film[:, t]
                answers.append(torch.cat([0.5 - seen, seen - 0.5], dim=1))
            return torch.stack(answers, dim=1)

    module: Any = torch.jit.script(Memory())
    torch.jit.save(module, folder / "memory.ts")
    body = """
[inferer]
layout = "NZCYX"
"""
    return write_card(folder, "torchscript", body, weights="memory.ts")


def multi_series(folder: Path) -> Card:
    """Two series as channels of one network, each scaled in its own way; the second one counts."""
    onnx_net(folder / "net.onnx", channels=2, threshold=500.0)
    body = """
[[inputs]]
name = "CT"
[[inputs]]
name = "PET"
[[preprocess]]
name = "ScaleIntensityRange"
inputs = ["CT"]
a_min = -1000
a_max = 1000
[[preprocess]]
name = "ScaleIntensity"
inputs = ["PET"]
"""
    return write_card(folder, "onnx", body, weights="net.onnx")


SEG_PROGRAM = '''
"""Marks what is brighter than 150 in a DICOM SEG, with the label that its maker likes."""
import os, sys
from pathlib import Path
import numpy, pydicom
from highdicom.seg import Segmentation, SegmentDescription
from highdicom import AlgorithmIdentificationSequence
from pydicom.sr.codedict import codes

slices = sorted((pydicom.dcmread(p) for p in Path(os.environ["MERCURE_IN_DIR"]).rglob("*.dcm")),
                key=lambda d: -d.ImagePositionPatient[2])
voxels = numpy.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in slices])
by = AlgorithmIdentificationSequence("program", codes.DCM.ArtificialIntelligence, "1")
described = SegmentDescription(1, "maker's name", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Nodule,
                               "AUTOMATIC", by)
segmentation = Segmentation(slices, (voxels > 150).astype("uint8"), "BINARY", [described], pydicom.uid.generate_uid(),
                            1, pydicom.uid.generate_uid(), 1, "maker", "program", "1", "1")
segmentation.save_as(Path(os.environ["MERCURE_OUT_DIR"]) / "seg.dcm")
print("read", slices[0].PatientName, file=sys.stderr)
'''


def program(folder: Path) -> Card:
    """A program that writes a DICOM SEG, its slices in another order, its label under another name."""
    (folder / "program.py").write_text(SEG_PROGRAM)
    body = f"""
[external]
command = {json.dumps([sys.executable, "{model}/program.py"])}
network = true
memory_mb = 4000
segments = {{"maker's name" = "Bright"}}
"""
    return write_card(folder, "external", body)


def film() -> np.ndarray:
    """(frames, rows, columns): a light that goes on in the fourth of eight frames."""
    frames = np.zeros((8, 10, 12), np.float32)
    frames[3:, 2:5, 6:9] = 1.0
    return frames
