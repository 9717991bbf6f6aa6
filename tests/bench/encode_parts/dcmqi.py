"""dcmqi's ``itkimage2segimage`` on the same mask: the C++ that 3D Slicer and MITK use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from encode_parts.material import SPACING_MM, held_values

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = "itkimage2segimage"


def program() -> str | None:
    """Where it is installed: on the path, or where tests/install-peers.sh puts it."""
    ours = ROOT / ".venv-dcmqi" / "bin" / PROGRAM
    return str(ours) if ours.exists() else shutil.which(PROGRAM)


def prepare(folder: Path, count: int) -> None:
    """The mask as NRRD, and what it says of its segments."""
    mask = np.load(folder / f"mask-{count}.npy")
    directions = " ".join(f"({','.join(str(v if a == b else 0) for b in range(3))})" for a, v in enumerate(_xyz()))
    head = [
        *("NRRD0004", "type: unsigned char", "dimension: 3", "space: left-posterior-superior"),
        f"sizes: {' '.join(map(str, mask.shape[::-1]))}",
        *(f"space directions: {directions}", "kinds: domain domain domain", "endian: little"),
        *("encoding: raw", "space origin: (-200,-200,0)", "", ""),
    ]
    (folder / f"mask-{count}.nrrd").write_bytes("\n".join(head).encode() + mask.tobytes())
    (folder / f"meta-{count}.json").write_text(json.dumps(_told(held_values(mask))))


def run(folder: Path, count: int) -> dict[str, float]:
    """CPU seconds, of user and system, peak memory and size of one run."""
    out = folder / "out" / "dcmqi.dcm"
    out.parent.mkdir(exist_ok=True)
    out.unlink(missing_ok=True)
    command = [
        *(program() or PROGRAM, "--inputImageList", str(folder / f"mask-{count}.nrrd")),
        *("--inputDICOMDirectory", str(folder / "ct"), "--outputDICOM", str(out)),
        *("--inputMetadata", str(folder / f"meta-{count}.json"), "--skip"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not out.exists():
        raise RuntimeError(f"{PROGRAM} ended with {process.returncode}")
    return {
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "size_mb": out.stat().st_size / 1e6,
    }


def _xyz() -> tuple[float, float, float]:
    return SPACING_MM[2], SPACING_MM[1], SPACING_MM[0]


def _told(values: list[int]) -> dict[str, object]:
    organ = {"CodeValue": "113343008", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Organ"}
    category = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    return {
        "ContentCreatorName": "Bench",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "BodyPartExamined": "",
        "SeriesDescription": "Bench",
        "segmentAttributes": [
            [
                {
                    "labelID": v,
                    "SegmentDescription": f"Organ {v}",
                    "SegmentAlgorithmType": "AUTOMATIC",
                    "SegmentAlgorithmName": "Bench",
                    "SegmentedPropertyCategoryCodeSequence": category,
                    "SegmentedPropertyTypeCodeSequence": organ,
                    "recommendedDisplayRGBValue": [255, 200, 0],
                }
                for v in values
            ]
        ],
    }
