"""What is answered to a request (PS3.18 Section 10.5.3): a status, and what became of each instance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from overread.receive.intake import CANNOT_UNDERSTAND
from overread.receive.stow.exchange import Answer
from overread.receive.stow.store import End, Flaw, Outcome, Report

# In words, as the conformance statement gives them.
STATUSES = {
    200: "every instance is stored",
    202: "some are stored and some are not, or the body broke off after some were; the payload says which",
    400: "the request, or its body, is not what it says; or the body broke off before anything was stored",
    401: "no bearer token that is known",
    403: "the network address, or the sender's name, is not on the allow-list",
    404: "not a resource of this service",
    405: "not POST",
    406: "none of the media types of the response is accepted",
    408: "head or body came too slowly; the payload says what was stored before",
    409: "no instance is stored, for the reasons in the payload",
    411: "neither Content-Length nor chunked",
    413: "larger than a request, or than each instance of it, may be; the payload says what was stored before",
    415: "Content-Type, Content-Encoding or every part is of a kind that is not taken",
    431: "the head of the request is too long",
    500: "a fault of overread; try again",
    501: "a transfer coding other than chunked",
    503: "there is no room, or too many are connected; try again after Retry-After",
}
RETRY_AFTER_S = 60
FAILED, REFERENCED, OTHER = "00081198", "00081199", "0008119A"
SOP_CLASS, SOP_INSTANCE, REASON, RETRIEVE_URL = "00081150", "00081155", "00081197", "00081190"
KEYWORDS = {
    RETRIEVE_URL: "RetrieveURL",
    REFERENCED: "ReferencedSOPSequence",
    FAILED: "FailedSOPSequence",
    OTHER: "OtherFailuresSequence",
    SOP_CLASS: "ReferencedSOPClassUID",
    SOP_INSTANCE: "ReferencedSOPInstanceUID",
    REASON: "FailureReason",
}
NATIVE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
BROKEN = {End.TOO_SLOW: 408, End.TOO_MUCH: 413, End.NOT_MULTIPART: 400}

# The DICOM JSON Model of a data set (PS3.18 Annex F): tag → VR and values.
Json = dict[str, Any]


def answer(report: Report, media_type: str) -> Answer:
    """In the representation asked for; a body that held no part at all is answered with a sentence."""
    status = status_of(report)
    fields = [("Retry-After", str(RETRY_AFTER_S))] if status == 503 else []
    if not report.outcomes:
        return Answer.plain(status, report.reason or "the body has no part", fields)
    if why := reason_of(report):
        fields.append(("Warning", f'299 overread "{_quotable(why)}"'))
    return Answer(status, render(module(report), media_type), media_type, fields)


def status_of(report: Report) -> int:
    """As the table above says."""
    if report.end in BROKEN:
        return BROKEN[report.end]
    if not report.outcomes:
        return 400
    if report.end is End.CUT_OFF:
        return 202 if report.stored else 400
    if not report.failed:
        return 200
    return 202 if report.stored else _nothing_stored(report.failed)


def _nothing_stored(failed: Sequence[Outcome]) -> int:
    flaws = {outcome.flaw for outcome in failed}
    if flaws == {Flaw.MEDIA_TYPE}:
        return 415
    if flaws == {Flaw.TOO_LARGE}:
        return 413
    if all(outcome.failure >> 8 == 0xA7 and outcome.flaw is Flaw.NONE for outcome in failed):
        return 503
    return 409


def reason_of(report: Report) -> str:
    """Why not all is stored, in words for people: of a broken body, or else of the first part that failed."""
    return report.reason or next((outcome.reason for outcome in report.failed), "")


def _quotable(text: str) -> str:
    # Reasons are ours, but may one day quote a value: in a header field it must not end the field, nor the quotation.
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in text)


def module(report: Report) -> Json:
    """The Store Instances Response Module (PS3.18 Annex I).

    What cannot be named stands in OtherFailuresSequence, and so does a body that broke off. RetrieveURL is empty: what
    is stored here cannot be retrieved.
    """
    named = [outcome for outcome in report.failed if outcome.sop_class_uid and outcome.sop_instance_uid]
    others = [outcome.failure for outcome in report.failed if outcome not in named]
    if report.end is not End.WHOLE:
        others.append(CANNOT_UNDERSTAND)
    made: Json = {RETRIEVE_URL: {"vr": "UR"}}
    for tag, items in (
        (FAILED, [_reference(outcome) | _reason(outcome.failure) for outcome in named]),
        (REFERENCED, [{RETRIEVE_URL: {"vr": "UR"}} | _reference(outcome) for outcome in report.stored]),
        (OTHER, [_reason(failure) for failure in others]),
    ):
        if items:
            made[tag] = {"vr": "SQ", "Value": items}
    return made


def render(dataset: Json, media_type: str) -> bytes:
    """As JSON (PS3.18 Annex F) or XML (PS3.19 Annex A.1)."""
    if not media_type.endswith("xml"):
        return json.dumps(dataset, separators=(",", ":")).encode()
    root = ElementTree.Element("NativeDicomModel", {"xmlns": NATIVE, "xml:space": "preserve"})
    _add(root, dataset)
    return bytes(ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True))


def _reference(outcome: Outcome) -> Json:
    return {
        SOP_CLASS: {"vr": "UI", "Value": [outcome.sop_class_uid]},
        SOP_INSTANCE: {"vr": "UI", "Value": [outcome.sop_instance_uid]},
    }


def _reason(failure: int) -> Json:
    return {REASON: {"vr": "US", "Value": [failure]}}


def _add(parent: ElementTree.Element, dataset: Mapping[str, Any]) -> None:
    for tag in sorted(dataset):
        vr = dataset[tag]["vr"]
        about = {"tag": tag, "vr": vr, "keyword": KEYWORDS[tag]}
        attribute = ElementTree.SubElement(parent, "DicomAttribute", about)
        for number, value in enumerate(dataset[tag].get("Value", ()), 1):
            inner = ElementTree.SubElement(attribute, "Item" if vr == "SQ" else "Value", {"number": str(number)})
            if vr == "SQ":
                _add(inner, value)
            else:
                inner.text = str(value)
