"""The domain's codes as highdicom's, and the codes that only results need."""

from __future__ import annotations

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

from overread.domain.card import ANATOMICAL_STRUCTURE, Label
from overread.domain.codes import Code

QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500
ABSENT = Code("272519000", "SCT", "Absent")  # CID 240
PRESENT = Code("52101004", "SCT", "Present")
NOT_VISUALIZED = Code("122288", "DCM", "Not visualized")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")
SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")  # its values: CID 6047
WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
NOTHING_DONE = Code("111245", "DCM", "No algorithms succeeded; without findings")
COMMENT = Code("121106", "DCM", "Comment")
FINDING, FINDING_CATEGORY = Code("121071", "DCM", "Finding"), Code("276214006", "SCT", "Finding category")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
LATERALITY = Code("272741003", "SCT", "Laterality")
TOPOGRAPHICAL_MODIFIER = Code("106233006", "SCT", "Topographical Modifier")
LATERALITIES = frozenset({"7771000", "24028007", "51440002", "66459002"})  # CID 244: left, right, both, unilateral

_MODALITIES = {  # CID 29
    "CT": "Computed Tomography",
    "MR": "Magnetic Resonance",
    "PT": "Positron emission tomography",
    "NM": "Nuclear Medicine",
    "CR": "Computed Radiography",
    "DX": "Digital Radiography",
    "MG": "Mammography",
    "US": "Ultrasound",
    "XA": "X-Ray Angiography",
    "RF": "Radiofluoroscopy",
}


def coded(code: Code) -> CodedConcept:
    """``code`` as a coded concept."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def site_of(label: Label) -> tuple[Code, Code | None, Code | None] | None:
    """Where things of this label are: (place, laterality, other modifier); None when unknown.

    An anatomical structure is its own place, else it is the region that the card names. The modifier is a laterality
    when it is one (CID 244), else a topographical modifier.
    """
    where, modifier = label.region, label.region_modifier
    if label.category.value == ANATOMICAL_STRUCTURE.value:
        where, modifier = label.type, label.modifier
    if where is None:
        return None
    if modifier is not None and modifier.value in LATERALITIES:
        return where, modifier, None
    return where, None, modifier


def modality(name: str) -> Code:
    """The modality as a code (CID 29)."""
    known = _MODALITIES.get(name)
    return Code(name, "DCM", known) if known else Code("OT", "DCM", "Other Modality")


def procedure(name: str) -> Code:
    """What was done to the patient, as far as the modality tells (CID 100)."""
    known = {
        "CT": codes.cid100.CTUnspecifiedBodyRegion,
        "MR": codes.cid100.MRIUnspecifiedBodyRegion,
        "PT": codes.cid100.PETUnspecifiedBodyRegion,
        "NM": codes.cid100.NMUnspecifiedBodyRegion,
        "CR": codes.cid100.XRUnspecifiedBodyRegion,
        "DX": codes.cid100.XRUnspecifiedBodyRegion,
    }
    found = known.get(name, codes.cid100.ImagingProcedure)
    return Code(found.value, found.scheme_designator, found.meaning)
