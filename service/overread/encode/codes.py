"""The domain's codes as highdicom's, and the codes that only results need."""

from __future__ import annotations

from highdicom.sr import CodedConcept, FindingSite
from pydicom.sr.codedict import codes

from overread.domain.card import ANATOMICAL_STRUCTURE, Label
from overread.domain.codes import Code

QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500
ABSENT = Code("272519000", "SCT", "Absent")  # CID 240
NOT_VISUALIZED = Code("122288", "DCM", "Not visualized")
LATERALITIES = frozenset({"7771000", "24028007", "51440002", "66459002"})  # CID 244: left, right, both, unilateral


def coded(code: Code) -> CodedConcept:
    """``code`` as a coded concept."""
    return CodedConcept(code.value, code.scheme, code.meaning)


def finding_site(label: Label) -> FindingSite | None:
    """Where things of this label are: an anatomical structure is its own place, else the region that the card names.

    The modifier goes as laterality when it is one (CID 244), else as topographical modifier. None when unknown.
    """
    where, modifier = label.region, label.region_modifier
    if label.category.value == ANATOMICAL_STRUCTURE.value:
        where, modifier = label.type, label.modifier
    if where is None:
        return None
    if modifier is None:
        return FindingSite(coded(where))
    if modifier.value in LATERALITIES:
        return FindingSite(coded(where), laterality=coded(modifier))
    return FindingSite(coded(where), topographical_modifier=coded(modifier))


def procedure(modality: str) -> CodedConcept:
    """What was done to the patient, as far as the modality tells (CID 100)."""
    known = {
        "CT": codes.cid100.CTUnspecifiedBodyRegion,
        "MR": codes.cid100.MRIUnspecifiedBodyRegion,
        "PT": codes.cid100.PETUnspecifiedBodyRegion,
        "NM": codes.cid100.NMUnspecifiedBodyRegion,
        "CR": codes.cid100.XRUnspecifiedBodyRegion,
        "DX": codes.cid100.XRUnspecifiedBodyRegion,
    }
    return CodedConcept.from_code(known.get(modality, codes.cid100.ImagingProcedure))
