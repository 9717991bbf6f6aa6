"""Is a request one for us? Judged by its head alone, before a byte of its body is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from overread.receive.stow.accept import OFFERS, negotiate
from overread.receive.stow.exchange import Exchange, Refusal
from overread.receive.stow.limits import Limits
from overread.receive.stow.media import read_media_type
from overread.receive.stow.multipart import BOUNDARY

DICOM, RELATED = "application/dicom", "multipart/related"
UID = re.compile(r"[0-9.]{1,64}")
LENGTH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Order:
    """What is to be done: ``study`` empty takes instances of any; ``length`` None is a body in chunks."""

    study: str
    boundary: str
    answer_type: str
    length: int | None


def judge(exchange: Exchange, path: str, limits: Limits) -> Order:
    """Raises Refusal: 400, 404, 405, 406, 411, 413 or 415 (PS3.18 Table 10.5.3-1, RFC 9110 Section 15)."""
    try:
        url = urlsplit(exchange.target)
        query = parse_qs(url.query, max_num_fields=100)
    except ValueError:
        raise Refusal(400, "the request target cannot be read") from None
    study = _study(url.path, path)
    if exchange.method != "POST":
        raise Refusal(405, "instances are stored here by POST; nothing is retrieved", [("Allow", "POST")])
    boundary = _boundary(exchange)
    asked = query["accept"][0] if "accept" in query else exchange.all("accept")  # PS3.18 Section 8.3.3.1
    answer_type = negotiate(asked)
    if answer_type is None:
        raise Refusal(406, f"the answer can be {', '.join(OFFERS)}; the request accepts none of them")
    return Order(study, boundary, answer_type, _length(exchange, limits))


def _study(target: str, path: str) -> str:
    """The study that the target names, empty for none; raises Refusal when it is no resource of this service."""
    place = target.removeprefix(path.rstrip("/")).removesuffix("/") if target.startswith(path.rstrip("/") + "/") else ""
    if place == "/studies":
        return ""
    root, _, named = place.removeprefix("/").partition("/")
    if root != "studies" or "/" in named:
        raise Refusal(404, f"there is nothing here; instances are stored by POST to {path.rstrip('/')}/studies")
    study = unquote(named)
    if not UID.fullmatch(study):
        raise Refusal(400, "what the path names as a study is not a UID (PS3.5 Section 9.1)")
    return study


def _boundary(exchange: Exchange) -> str:
    encoding = (exchange.all("content-encoding") or "identity").strip().lower()
    if encoding != "identity":
        raise Refusal(415, "bodies are taken without Content-Encoding", [("Accept-Encoding", "identity")])
    written = exchange.one("content-type")
    media = read_media_type(written or "")
    wanted = [("Accept-Post", f'{RELATED}; type="{DICOM}"')]
    if media.name != RELATED:
        raise Refusal(415, f'Content-Type must be {RELATED}; type="{DICOM}"; boundary=…', wanted)
    inner = read_media_type(media.parameters.get("type", DICOM)).name
    if inner != DICOM:
        raise Refusal(415, f"parts of type {DICOM} are taken, no others", wanted)
    boundary = media.parameters.get("boundary", "")
    if not BOUNDARY.fullmatch(boundary):
        raise Refusal(400, "Content-Type names no boundary, or one that cannot be (RFC 2046 Section 5.1.1)")
    return boundary


def _length(exchange: Exchange, limits: Limits) -> int | None:
    length = exchange.one("content-length")
    if "transfer-encoding" in exchange.fields:  # chunked: h11 knows no other
        if length is not None:
            raise Refusal(400, "the request has both Content-Length and Transfer-Encoding (RFC 9112 Section 6.1)")
        return None
    if length is None:
        raise Refusal(411, "the request has neither Content-Length nor Transfer-Encoding: chunked")
    if not LENGTH.fullmatch(length):
        raise Refusal(400, "Content-Length is no number")
    if int(length) > limits.request_bytes:
        raise Refusal(413, f"a request may have {limits.request_bytes} bytes; send fewer instances in one")
    if int(length) == 0:
        raise Refusal(400, "the request has no body")
    return int(length)
