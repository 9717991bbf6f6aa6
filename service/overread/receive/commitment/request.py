"""A request for storage commitment: the Action Information of an N-ACTION (PS3.4 Table J.3-1), checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydicom.dataset import Dataset

PUSH_MODEL, WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
REQUEST_STORAGE_COMMITMENT = 1
# PS3.7 Section 10.1.4.1.10 and Annex C.
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
INVALID_VALUE = 0x0115
MISSING_ATTRIBUTE = 0x0120
NO_SUCH_ACTION = 0x0123
MISTYPED = 0x0212
RESOURCE_LIMITATION = 0x0213

_UID = re.compile(r"[0-9][0-9.]{0,63}")


class Improper(Exception):
    """A request that cannot be taken: the N-ACTION status and the reason, without values of patients."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def read_request(request: Any, information: Any, most: int) -> tuple[str, dict[str, str]]:
    """The Transaction UID, and SOP Instance UID → SOP Class UID of the instances that are asked for, at most ``most``.

    ``request`` is an N-ACTION primitive, ``information()`` its decoded data set. Raises Improper.
    """
    if str(request.RequestedSOPInstanceUID) != WELL_KNOWN_INSTANCE:
        raise Improper(NO_SUCH_INSTANCE, f"only the instance {WELL_KNOWN_INSTANCE} is asked for commitment")
    if request.ActionTypeID != REQUEST_STORAGE_COMMITMENT:
        raise Improper(NO_SUCH_ACTION, "the one action is 1, request storage commitment")
    if request.ActionInformation is None:
        raise Improper(MISSING_ATTRIBUTE, "there is no Action Information")
    try:
        dataset = information()
        transaction_uid = _uid(dataset, "TransactionUID")
        return transaction_uid, _references(dataset, most)
    except Improper:
        raise
    except Exception as error:
        # The edge to whatever a stranger sends: pydicom raises errors of many kinds on values that it cannot read.
        raise Improper(MISTYPED, f"the Action Information cannot be read ({type(error).__name__})") from error


def _references(dataset: Dataset, most: int) -> dict[str, str]:
    items = dataset.get("ReferencedSOPSequence")
    if items is None:
        raise Improper(MISSING_ATTRIBUTE, "ReferencedSOPSequence is missing")
    if not 0 < len(items) <= most:
        limit = f"at most {most} instances are taken at once" if items else "ReferencedSOPSequence is empty"
        raise Improper(RESOURCE_LIMITATION if items else INVALID_VALUE, limit)
    found: dict[str, str] = {}
    for item in items:
        sop_class, uid = _uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID")
        if found.setdefault(uid, sop_class) != sop_class:
            raise Improper(INVALID_VALUE, "an instance is asked for twice, with two SOP Classes")
    return found


def _uid(dataset: Dataset, keyword: str) -> str:
    if keyword not in dataset:
        raise Improper(MISSING_ATTRIBUTE, f"{keyword} is missing")
    value = str(dataset[keyword].value or "").strip("\0 ")
    if not _UID.fullmatch(value):
        raise Improper(INVALID_VALUE, f"{keyword} is {'not a valid UID' if value else 'empty'} (PS3.5 Section 9.1)")
    return value


def report(transaction_uid: str, references: Mapping[str, str], failures: Mapping[str, int]) -> tuple[int, Dataset]:
    """Event Type ID and Event Information of an N-EVENT-REPORT (PS3.4 Table J.3-2).

    ``references`` and ``failures`` are by SOP Instance UID: SOP Class UID and Failure Reason. No Retrieve AE Title is
    given: nothing can be retrieved from overread.
    """
    information = Dataset()
    information.TransactionUID = transaction_uid
    good = [_item(sop_class, uid) for uid, sop_class in references.items() if uid not in failures]
    bad = [_item(sop_class, uid) for uid, sop_class in references.items() if uid in failures]
    for item in bad:
        item.FailureReason = failures[item.ReferencedSOPInstanceUID]
    if good:
        information.ReferencedSOPSequence = good
    if bad:
        information.FailedSOPSequence = bad
    return (2 if bad else 1), information


def _item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item
