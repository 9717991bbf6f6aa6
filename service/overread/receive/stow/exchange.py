"""One request head in, one response out, in the words of HTTP/1.1 (RFC 9112), which h11 knows.

h11 reads heads and writes responses; bodies go past it, for it copies each byte twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

import h11

from overread.receive.stow.wire import TooSlow, Wire

TEXT = "text/plain; charset=utf-8"
Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What is said to a request."""

    status: int
    content: bytes = b""
    media_type: str = TEXT
    fields: Fields = ()

    @classmethod
    def plain(cls, status: int, reason: str, fields: Fields = ()) -> Answer:
        """A sentence for people."""
        return cls(status, (reason + "\n").encode(), TEXT, fields)


class Refusal(Exception):
    """A request is not taken: what is answered instead of reading its body."""

    def __init__(self, status: int, reason: str, fields: Fields = ()) -> None:
        super().__init__(reason)
        self.status, self.reason, self.fields = status, reason, fields

    @property
    def answer(self) -> Answer:
        """In words."""
        return Answer.plain(self.status, self.reason, self.fields)


@dataclass
class Exchange:
    """One request; header fields by their names in lower case, as many as came."""

    h11_side: h11.Connection
    method: str
    target: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    keeps: bool = True
    expects_continue: bool = False

    def one(self, name: str) -> str | None:
        """A field that may come once; raises Refusal when it comes twice."""
        values = self.fields.get(name, [])
        if len(values) > 1:
            raise Refusal(400, f"the header field {name} comes {len(values)} times")
        return values[0] if values else None

    @property
    def bodyless(self) -> bool:
        """Whether the next request follows at once."""
        return "transfer-encoding" not in self.fields and self.fields.get("content-length", ["0"]) == ["0"]

    def all(self, name: str) -> str | None:
        """A field that is a list, and may come in several lines."""
        return ", ".join(self.fields[name]) if name in self.fields else None


def read_head(wire: Wire, most_bytes: int, first_s: float, whole_s: float) -> Exchange | None:
    """The next head; None when the other side has nothing more to ask.

    It must begin within ``first_s`` and be whole ``whole_s`` after that. Raises Refusal when it is none, is longer than
    ``most_bytes``, or does not come in time.
    """
    side = h11.Connection(h11.SERVER, max_incomplete_event_size=most_bytes)
    begun, deadline = False, time.monotonic() + first_s
    try:
        while (event := side.next_event()) is h11.NEED_DATA:
            came = wire.receive(deadline)
            if not came:
                return None
            if not begun:
                begun, deadline = True, time.monotonic() + whole_s
            side.receive_data(came)
    except TooSlow:
        if not begun:
            return None
        raise Refusal(408, f"the head of the request was not whole after {whole_s:g} s") from None
    except h11.RemoteProtocolError as error:
        reasons = {
            431: f"the head of the request is longer than {most_bytes} bytes",
            501: "of transfer codings, chunked alone is known",
        }
        status = error.error_status_hint if error.error_status_hint in reasons else 400
        raise Refusal(status, reasons.get(status, "this is no HTTP/1.1 request")) from None
    if not isinstance(event, h11.Request):
        return None
    rest, _ = side.trailing_data
    wire.hold(rest)
    return _exchange(side, event, most_bytes)


def _exchange(side: h11.Connection, request: h11.Request, most_bytes: int) -> Exchange:
    made = Exchange(side, request.method.decode("latin-1"), request.target.decode("latin-1"))
    size = len(request.target)
    for name, value in request.headers:
        size += len(name) + len(value) + 4
        made.fields.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    if size > most_bytes:  # it came in one read, before h11 could find it too long
        raise Refusal(431, f"the head of the request is longer than {most_bytes} bytes")
    options = (made.all("connection") or "").lower().split(",")
    made.keeps = request.http_version == b"1.1" and "close" not in [option.strip() for option in options]
    made.expects_continue = side.they_are_waiting_for_100_continue
    return made


def say_continue(wire: Wire, exchange: Exchange) -> None:
    """Ask for the body, when the other side waits to be asked (RFC 9110 Section 10.1.1)."""
    if exchange.expects_continue:
        informed = exchange.h11_side.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        wire.send(informed or b"")


def respond(wire: Wire, exchange: Exchange | None, answer: Answer, *, keep: bool) -> bool:
    """Send it; False when nobody is there to hear it. ``exchange`` None: to what was no request."""
    side = exchange.h11_side if exchange is not None else h11.Connection(h11.SERVER)
    fields = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", answer.media_type),
        ("Content-Length", str(len(answer.content))),
        *answer.fields,
    ]
    if not keep:
        fields.append(("Connection", "close"))
    said = side.send(h11.Response(status_code=answer.status, headers=fields, reason=_phrase(answer.status))) or b""
    bodyless = exchange is not None and exchange.method == "HEAD"
    return wire.send(said if bodyless else said + answer.content)


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()
