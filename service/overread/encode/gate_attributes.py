"""Every attribute that the object's IOD demands is there, and those of type 1 have a value (PS3.3, PS3.5 7.4).

Which attributes these are is read from the tables of the Standard that highdicom carries. Patient and study attributes
are the source's own, flawed or not, and are left alone here: the archive files by them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from highdicom._standard_utils import construct_module_tree, get_iod_module_map, get_sop_class_iod_map
from pydicom.dataset import Dataset

from overread.domain.errors import Misplaced
from overread.encode.sources import IDENTITY, REQUEST

# Walked elsewhere, frame by frame, or not part of the header that is looked at here.
_ELSEWHERE = frozenset(
    ("PerFrameFunctionalGroupsSequence", "PixelData", "ContentSequence", "CurrentRequestedProcedureEvidenceSequence")
)
_TREE = "sr-document-content"  # the tables do not tell which content items their rows are for
_SHARED = "SharedFunctionalGroupsSequence."  # a group stands here or with each frame; what it holds is looked at
_SOURCES_OWN = frozenset({*IDENTITY, *REQUEST})

Tree = dict[str, Any]


def check(header: Dataset) -> None:
    """Raise Misplaced for the first attribute that a mandatory module of the object's IOD demands and that lacks."""
    for module in _mandatory(str(header.SOPClassUID)):
        _look(header, _tree(module), "")


@lru_cache(maxsize=32)
def _mandatory(sop_class_uid: str) -> tuple[str, ...]:
    iod = get_sop_class_iod_map().get(sop_class_uid)
    return tuple(m["key"] for m in get_iod_module_map().get(iod, []) if m["usage"] == "M" and m["key"] != _TREE)


@lru_cache(maxsize=128)
def _tree(module: str) -> Tree:
    found: Tree = construct_module_tree(module)["attributes"]
    return found


def _look(dataset: Dataset, tree: Tree, where: str) -> None:
    for keyword, entry in tree.items():
        if keyword in _ELSEWHERE or (not where and keyword in _SOURCES_OWN):
            continue
        kind = entry["type"].value
        element = dataset.get_item(keyword) if keyword in dataset else None
        if element is None and kind in ("1", "2") and where != _SHARED:
            raise Misplaced(f"{where}{keyword} is missing, which is of type {kind}")
        if element is None:
            continue
        if kind == "1" and dataset[keyword].is_empty:
            raise Misplaced(f"{where}{keyword} is empty, which is of type 1")
        if "attributes" in entry and dataset[keyword].VR == "SQ":
            for item in dataset[keyword].value:
                _look(item, entry["attributes"], f"{where}{keyword}.")
