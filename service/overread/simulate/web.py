"""The simulated PACS by HTTP: STOW-RS, QIDO-RS and WADO-RS (PS3.18), and the switchboard for what goes wrong.

    /dicom-web/studies …       the DICOMweb services
    /faults   GET, POST, DELETE  what goes wrong: told, added (one fault as JSON, or a list), all taken back
    /objects  GET               how often each SOP Instance UID came and was stored
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_keyword, dictionary_VR, tag_for_keyword
from pydicom.errors import InvalidDicomError

from overread.domain.errors import ConfigError
from overread.receive.stow.media import read_media_type
from overread.receive.stow.multipart import Multipart, NotMultipart
from overread.simulate.mischief import Mishap, fault_of
from overread.simulate.pacs import Pacs

ROOT = "/dicom-web"
DICOM_JSON = "application/dicom+json"
BOUNDARY = "simulated-pacs"
MOST_HEADER_BYTES = 16 << 10
_LEVELS = {1: "STUDY", 3: "SERIES", 5: "IMAGE"}
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_TOLD = {
    "STUDY": (_UIDS[0], "PatientID", "PatientName", "StudyDate", "AccessionNumber"),
    "SERIES": (*_UIDS[:2], "Modality"),
    "IMAGE": (*_UIDS, "SOPClassUID"),
}


class Web:
    """A PACS' DICOMweb services and switchboard on a port of their own; ``port`` 0 takes a free one."""

    def __init__(self, pacs: Pacs, host: str = "127.0.0.1", port: int = 0) -> None:
        self.pacs = pacs
        handler = type("Handler", (_Handler,), {"pacs": pacs})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The root of its DICOMweb services."""
        return f"http://{self.host}:{self.port}{ROOT}"

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pacs.mischief.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _CutOff(Exception):
    """The connection ends without an answer."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    pacs: Pacs
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answered({"/faults": self._faults, "/objects": self._objects}, self._search_or_retrieve)

    def do_POST(self) -> None:
        self._answered({"/faults": self._add_faults}, self._store)

    def do_DELETE(self) -> None:
        self._answered({"/faults": self._clear_faults}, self._unknown)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (as its base names it)
        """Nothing: who asked for what is no news here."""

    def _answered(self, switches: dict[str, Callable[[], None]], otherwise: Callable[[], None]) -> None:
        path = urlsplit(self.path).path.rstrip("/")
        try:
            if path in switches:
                switches[path]()
            elif not path.startswith(ROOT):
                self._unknown()
            elif self._is_willing():
                otherwise()
        except (_CutOff, ConnectionError):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.close()

    def _is_willing(self) -> bool:
        """What goes wrong before a request is read, as it would with an association."""
        mischief = self.pacs.mischief
        if mischief.is_on(Mishap.DOWN) or mischief.strikes(Mishap.ABORT_ACCEPTED):
            raise _CutOff
        for kind in (Mishap.SLOW, Mishap.STALL_ACCEPTED):
            if fault := mischief.strikes(kind):
                mischief.stall(fault)
        if self.pacs.refuse or mischief.strikes(Mishap.REFUSE):
            self._say(503, b"")
            self.close_connection = True
            return False
        return True

    # the switchboard

    def _faults(self) -> None:
        self._say_json(200, self.pacs.mischief.told(), "application/json")

    def _objects(self) -> None:
        told = {"received": self.pacs.received, "stored": self.pacs.stored}
        self._say_json(200, told, "application/json")

    def _add_faults(self) -> None:
        try:
            asked = json.loads(self._body())
            faults = [fault_of(one, "/faults") for one in (asked if isinstance(asked, list) else [asked])]
        except (ValueError, TypeError, AttributeError) as error:
            self._say_json(400, {"error": f"this is no fault: {error}"}, "application/json")
        except ConfigError as error:
            self._say_json(400, {"error": str(error)}, "application/json")
        else:
            self.pacs.mischief.add(*faults)
            self._faults()

    def _clear_faults(self) -> None:
        self.pacs.mischief.clear()
        self._faults()

    # DICOMweb

    def _store(self) -> None:
        mischief = self.pacs.mischief
        if fault := mischief.strikes(Mishap.STALL_TRANSFER):
            mischief.stall(fault)
        if mischief.strikes(Mishap.ABORT_TRANSFER):
            raise _CutOff
        try:
            boundary = read_media_type(self.headers.get("Content-Type", "")).parameters.get("boundary", "")
            objects = _objects_of(self._body(), boundary)
        except (NotMultipart, ValueError) as error:
            self._say_json(400, {"error": str(error)}, "application/json")
            return
        answer = Dataset()
        answer.ReferencedSOPSequence, answer.FailedSOPSequence = [], []
        for part10 in objects:
            self._take(part10, answer)
        self._before_the_answer()
        failed, stored = len(answer.FailedSOPSequence), len(answer.ReferencedSOPSequence)
        self._say_json(200 if not failed else 202 if stored else 409, answer.to_json_dict(), DICOM_JSON)

    def _take(self, part10: bytes, answer: Dataset) -> None:
        item = Dataset()
        try:
            header = dcmread(BytesIO(part10), stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
            item.ReferencedSOPClassUID = header.SOPClassUID
            item.ReferencedSOPInstanceUID = header.SOPInstanceUID
            status = self.pacs.take(part10, str(header.SOPInstanceUID))
        except (InvalidDicomError, AttributeError, ValueError, EOFError):
            status = 0xC000
        if status == 0x0000 or status >> 12 == 0xB:
            if status:
                item.WarningReason = status
            answer.ReferencedSOPSequence.append(item)
        else:
            item.FailureReason = status
            answer.FailedSOPSequence.append(item)

    def _before_the_answer(self) -> None:
        mischief = self.pacs.mischief
        if fault := mischief.strikes(Mishap.STALL_RESPONSE):
            mischief.stall(fault)
        if mischief.strikes(Mishap.ABORT_RESPONSE):
            raise _CutOff

    def _search_or_retrieve(self) -> None:
        if stall := self.pacs.mischief.strikes(Mishap.STALL_QUERY):
            self.pacs.mischief.stall(stall)
        if not self.pacs.queries or self.pacs.mischief.strikes(Mishap.NO_QUERIES):
            self._say(503, b"")
            return
        address = urlsplit(self.path)
        steps = [step for step in address.path[len(ROOT) :].split("/") if step]
        words, uids = steps[0::2], steps[1::2]
        if words == ["studies", "instances"]:
            words, uids = ["studies", "series", "instances"], [uids[0], ""]
        if words != ["studies", "series", "instances"][: len(words)] or not words:
            self._unknown()
        elif len(uids) < len(words):
            self._search(len(words), uids, dict(parse_qsl(address.query)))
        else:
            self._retrieve(uids)

    def _search(self, depth: int, uids: list[str], query: dict[str, str]) -> None:
        question = Dataset()
        question.QueryRetrieveLevel = ("STUDY", "SERIES", "IMAGE")[depth - 1]
        for keyword in _TOLD[question.QueryRetrieveLevel]:
            setattr(question, keyword, None)
        for keyword, uid in zip(_UIDS, uids, strict=False):
            setattr(question, keyword, uid)
        for name, value in query.items():
            keyword = name if tag_for_keyword(name) is not None else _keyword(name)
            if keyword and dictionary_VR(keyword) != "SQ":
                setattr(question, keyword, value)
        found = self.pacs.catalogue.find(question)
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 1 << 30))
        self._say_json(200, [answer.to_json_dict() for answer in found[offset : offset + limit]], DICOM_JSON)

    def _retrieve(self, uids: list[str]) -> None:
        question = Dataset()
        for keyword, uid in zip(_UIDS, uids, strict=False):
            setattr(question, keyword, uid)
        found = self.pacs.holdings.wanted(question)
        if not found:
            self._say(404, b"")
            return
        head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + path.read_bytes() + b"\r\n" for path in found) + f"--{BOUNDARY}--\r\n".encode()
        self._say(200, body, f'multipart/related; type="application/dicom"; boundary={BOUNDARY}')

    def _unknown(self) -> None:
        self._say(404, b"")

    # the wire

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _say_json(self, status: int, told: Any, media_type: str) -> None:
        self._say(status, json.dumps(told).encode(), media_type)

    def _say(self, status: int, body: bytes, media_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _objects_of(body: bytes, boundary: str) -> list[bytes]:
    """The contents of all parts. Raises NotMultipart when there are none, or the last is cut short."""
    stream = BytesIO(body)
    parts, found = Multipart(stream.readinto, boundary, MOST_HEADER_BYTES), []
    while parts.next_part() is not None:
        found.append(b"".join(map(bytes, parts.pieces())))
        if not parts.terminated:
            raise NotMultipart("the closing boundary is missing")
    return found


def _keyword(name: str) -> str:
    """The keyword of a tag in hexadecimal digits, as QIDO-RS may name an attribute; empty for anything else."""
    try:
        return dictionary_keyword(int(name, 16)) if len(name) == 8 else ""
    except (ValueError, KeyError):
        return ""
