"""The name of a label as codes: looked up by meaning in pydicom's copy of the Standard's dictionaries (PS3.16 Annex D).

What is not found there gets a code of our own scheme, 99OVERREAD, so that results stay valid (PS3.16 8.2: private
schemes begin with 99) and a person can see what is left to code.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache

from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from overread.domain.card import ANATOMICAL_STRUCTURE
from overread.domain.codes import Code

PRIVATE = "99OVERREAD"
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
BOTH = Code("51440002", "SCT", "Right and left")
SIDES = {"left": LEFT, "lt": LEFT, "l": LEFT, "right": RIGHT, "rt": RIGHT, "r": RIGHT, "both": BOTH}
CATEGORY_CID = 7150  # Segmentation Property Category

# What models call things → what the dictionary calls them; in lower case, without sides.
SYNONYMS = {
    "adrenal": "adrenal gland",
    "aorta artery": "aorta",
    "atrium": "atrium",
    "autochthon": "erector spinae muscle",
    "brain mask": "brain",
    "brain stem": "brain stem",
    "brainstem": "brain stem",
    "caudate": "caudate nucleus",
    "cerebellum cortex": "cerebellar cortex",
    "cerebellum white matter": "cerebellar white matter",
    "cerebral cortex": "cerebral cortex",
    "clavicula": "clavicle",
    "gall bladder": "gallbladder",
    "grey matter": "gray matter",
    "heart atrium": "atrium",
    "heart myocardium": "left ventricle myocardium",
    "myocardium": "left ventricle myocardium",
    "heart ventricle": "heart ventricle",
    "central necrosis": "necrosis",
    "enhancing tumor": "neoplasm",
    "heart atrium left": "left atrium",
    "heart atrium right": "right atrium",
    "heart ventricle left": "left ventricle",
    "heart ventricle right": "right ventricle",
    "hip": "hip bone",
    "iliac vena": "iliac vein",
    "ivc": "inferior vena cava",
    "kideny": "kidney",
    "lesion": "lesion",
    "lung lower lobe": "lower lobe of lung",
    "lung middle lobe": "middle lobe of lung",
    "lung nodule": "nodule",
    "lung upper lobe": "upper lobe of lung",
    "lv": "left ventricle",
    "lv pool": "left ventricle",
    "rv pool": "right ventricle",
    "oesophagus": "esophagus",
    "pallidum": "globus pallidus",
    "accumbens area": "nucleus accumbens",
    "peripheral zone": "peripheral zone of the prostate",
    "portal and splenic veins": "portal vein",
    "portal vein and splenic vein": "portal vein",
    "small bowel": "small intestine",
    "spinal cord": "spinal cord",
    "thalamus proper": "thalamus",
    "tumor": "neoplasm",
    "tumor core": "neoplasm",
    "tumour": "neoplasm",
    "urinary bladder": "bladder",
    "whole tumor": "neoplasm",
    "ventricle 3rd": "third ventricle",
    "ventricle 4th": "fourth ventricle",
    "3rd ventricle": "third ventricle",
    "4th ventricle": "fourth ventricle",
    "inferior lateral ventricle": "inferior horn of lateral ventricle",
    "cerebral spinal fluid": "cerebrospinal fluid",
    "csf": "cerebrospinal fluid",
    "hippocampi": "hippocampus",
}
# Codes of SNOMED CT that the Standard uses and the lookup by meaning does not reach.
GIVEN = {
    "bladder": Code("89837001", "SCT", "Urinary bladder"),
    "hip bone": Code("29836001", "SCT", "Hip"),
    "atrium": Code("59652004", "SCT", "Atrium"),
    "edema": Code("79654002", "SCT", "Edema"),
    "peripheral zone of the prostate": Code("279706003", "SCT", "Peripheral zone of the prostate"),
    "brain": Code("12738006", "SCT", "Brain"),
}
ABNORMALITIES = re.compile(
    r"tumou?r|nodule|lesion|edema|oedema|necro|metasta|cyst|neoplasm|cancer|carcinom|hemorrh|polyp"
)
COLORS = (
    (230, 60, 60), (60, 160, 230), (80, 190, 90), (240, 190, 50), (160, 100, 220), (240, 130, 40), (70, 200, 200),
    (230, 110, 180), (150, 170, 60), (120, 120, 230), (200, 140, 100), (100, 200, 150), (220, 220, 110), (140, 90, 140),
)  # fmt: skip


@dataclass(frozen=True)
class Coded:
    """Codes for one name: what it is, of which kind, and on which side."""

    type: Code
    category: Code
    modifier: Code | None = None

    @property
    def known(self) -> bool:
        """Whether the dictionary has it."""
        return self.type.scheme != PRIVATE


def look_up(name: str) -> Coded:
    """Codes for a label's name as models write it: ``kidney_left``, ``Right Kidney``, ``vertebrae_L5``."""
    words = re.sub(r"[_\-./]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).lower().split()
    sides = [SIDES[word] for word in words if word in SIDES]
    core = " ".join(word for word in words if word not in SIDES)
    abnormal = bool(ABNORMALITIES.search(core))
    category = ABNORMAL if abnormal else ANATOMICAL_STRUCTURE
    modifier = sides[0] if len(set(sides)) == 1 else None
    whole = _found(" ".join(words))
    if whole is not None:
        return Coded(whole, category)
    found = _found(core) or _vertebra(core) or _found(re.sub(r"\s*\d+$", "", core))
    return Coded(found or private(name), category, modifier)


def private(name: str) -> Code:
    """A code of our own scheme: at most 16 characters (VR SH), the same for the same name."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "label"
    if len(slug) > 16:
        slug = f"{slug[:9].strip('-')}-{hashlib.sha256(slug.encode()).hexdigest()[:6]}"
    return Code(slug, PRIVATE, name[:64])


def fault(code: Code) -> str | None:
    """What is wrong with a code by the dictionary: another meaning, or not known there. None when it is right."""
    if code.scheme == PRIVATE or code.scheme.startswith("99"):
        return None
    meanings = _meanings().get((code.scheme, code.value))
    if meanings is None:
        return "is not in pydicom's dictionary"
    said = {_plain(m) for m in meanings}
    return None if _plain(code.meaning) in said else f"means {sorted(meanings, key=len)[0]!r}"


@cache
def members(cid: int) -> frozenset[tuple[str, str]]:
    """(scheme, value) of all codes in a context group of PS3.16."""
    return frozenset(
        (scheme, value)
        for scheme, keywords in cid_concepts[cid].items()
        for keyword in keywords
        for value in concepts[scheme].get(keyword, ())
    )


def _found(name: str) -> Code | None:
    name = SYNONYMS.get(name, name)
    for candidate in (name, name.removesuffix("s"), name.removesuffix("e") + "a"):
        if candidate in GIVEN:
            return GIVEN[candidate]
        if candidate in _by_meaning():
            return _by_meaning()[candidate]
    return None


def _vertebra(core: str) -> Code | None:
    level = re.search(r"vertebra[e]?\s+([ctl]\d+)$", core) or re.match(r"([ctl]\d+)\s+vertebra[e]?$", core)
    return _by_meaning().get(f"{level.group(1)} vertebra") if level else None


@cache
def _by_meaning() -> dict[str, Code]:
    """SNOMED CT codes by their plain meaning; where several share one, the first in the dictionary."""
    found: dict[str, Code] = {}
    for entries in concepts["SCT"].values():
        for value, (meaning, _) in entries.items():
            if "(" not in meaning:
                found.setdefault(meaning.lower(), Code(value, "SCT", meaning))
    return found


@cache
def _meanings() -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for scheme, keywords in concepts.items():
        for entries in keywords.values():
            for value, (meaning, _) in entries.items():
                found.setdefault((scheme, value), set()).add(meaning)
    return found


def _plain(meaning: str) -> str:
    """A meaning without SNOMED's semantic tag and its ``structure of``, in lower case and American spelling."""
    text = re.sub(r"\s*\([^)]*\)$", "", meaning.lower()).replace("oe", "e").replace("grey", "gray")
    text = re.sub(r"\b(bone )?structure( of)?\b|\bstructure\b", "", text)
    return " ".join(text.split())
