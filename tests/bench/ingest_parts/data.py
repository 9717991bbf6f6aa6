"""What is sent: CT instances with noise in their pixels, the same bytes in every run, and the digest of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from ingest_parts.part10 import read_head

SIZES = {"CT": (400, 512), "small": (2000, 64)}
SERIES_LENGTH = 200

HEADER: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
    "SOPClassUID": CTImageStorage,
    **dict.fromkeys(("InstanceCreationDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), "20260105"),
    **dict.fromkeys(("InstanceCreationTime", "StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"), "081530.25"),
    "AccessionNumber": "INGEST01",
    "Modality": "CT",
    "Manufacturer": "overread bench",
    "InstitutionName": "Hospital of Noise",
    "ReferringPhysicianName": "Refer^Ada",
    "StationName": "CTNOISE",
    "StudyDescription": "Chest^Routine",
    "SeriesDescription": "Thorax 1.0 Br40",
    "ManufacturerModelName": "Generator",
    "PatientName": "Bench^Größe",
    "PatientID": "INGEST-1",
    "PatientBirthDate": "19610412",
    "PatientSex": "F",
    "PatientAge": "064Y",
    "PatientWeight": "71.5",
    "BodyPartExamined": "CHEST",
    "ScanOptions": "HELIX",
    "SliceThickness": "1.0",
    "KVP": "110",
    "DataCollectionDiameter": "500",
    "SoftwareVersions": "1",
    "ProtocolName": "Thorax routine",
    "ReconstructionDiameter": "370",
    "DistanceSourceToDetector": "1085.6",
    "DistanceSourceToPatient": "595",
    "GantryDetectorTilt": "0",
    "TableHeight": "148",
    "RotationDirection": "CW",
    "ExposureTime": "500",
    "XRayTubeCurrent": "183",
    "Exposure": "92",
    "FilterType": "WEDGE_3",
    "GeneratorPower": "32",
    "FocalSpots": "1.2",
    "ConvolutionKernel": "Br40d",
    "PatientPosition": "HFS",
    "StudyID": "1",
    "AcquisitionNumber": "2",
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PositionReferenceIndicator": "",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelSpacing": [0.722656, 0.722656],
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "WindowCenter": [40, -600],
    "WindowWidth": [400, 1200],
    "RescaleIntercept": 0,
    "RescaleSlope": 1,
    "RescaleType": "HU",
}


@dataclass(frozen=True)
class Load:
    """Files to send, and by SOP Instance UID the SHA-256 of each data set; ``size_bytes`` of all data sets."""

    name: str
    folder: Path
    files: Sequence[Path]
    digests: dict[str, str]
    size_bytes: int

    def shards(self, count: int) -> list[Path]:
        """Folders of links, one for each association, that share the files out in turn."""
        folders = [self.folder / f"{len(self.files)}-in-{count}" / str(k) for k in range(count)]
        for k, folder in enumerate(folders):
            if not folder.exists():
                folder.mkdir(parents=True)
                for file in self.files[k::count]:
                    (folder / file.name).symlink_to(file)
        return folders


def make_load(name: str, folder: Path, count: int) -> Load:
    """Generate ``count`` instances of the load ``name`` below ``folder``."""
    files, digests, size = [], {}, 0
    (folder / "files").mkdir(parents=True)
    for number in range(count):
        content = _part10(_instance(name, number, SIZES[name][1]))
        head = read_head(content)
        assert head is not None
        files.append(folder / "files" / f"{number:05}.dcm")
        files[-1].write_bytes(content)
        digests[head.sop_instance] = hashlib.sha256(memoryview(content)[head.start :]).hexdigest()
        size += len(content) - head.start
    return Load(name, folder, files, digests, size)


def _instance(load: str, number: int, edge: int) -> Dataset:
    series = number // SERIES_LENGTH
    image = Dataset()
    for keyword, value in HEADER.items():
        setattr(image, keyword, value)
    image.SOPInstanceUID = _uid(load, "instance", number)
    image.StudyInstanceUID, image.FrameOfReferenceUID = _uid(load, "study"), _uid(load, "frame")
    image.SeriesInstanceUID, image.SeriesNumber = _uid(load, "series", series), series + 1
    image.InstanceNumber, image.SliceLocation = number % SERIES_LENGTH + 1, float(number % SERIES_LENGTH)
    image.ImagePositionPatient = [-185.0, -185.0, image.SliceLocation]
    image.ProcedureCodeSequence = [_code("CTTHOR", "99OVERREAD", "CT of the chest")]
    request = Dataset()
    request.ScheduledProcedureStepID, request.ScheduledProcedureStepDescription = "S1", "Chest"
    request.ScheduledProtocolCodeSequence = [_code("P7", "99OVERREAD", "Chest, 1 mm")]
    image.RequestAttributesSequence = [request]
    block = image.private_block(0x0029, "OVERREAD BENCH", create=True)
    block.add_new(0x08, "LO", "what only the maker understands")
    block.add_new(0x10, "OB", np.random.default_rng(number).bytes(512))
    image.Rows = image.Columns = edge
    noise = np.random.default_rng([edge, number]).normal(-400, 350, (edge, edge))
    image.add_new("PixelData", "OW", noise.astype("<i2").tobytes())
    return image


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _part10(image: Dataset) -> bytes:
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = BytesIO()
    dcmwrite(content, image, enforce_file_format=True)
    return content.getvalue()


def _uid(*parts: object) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:15])}"
