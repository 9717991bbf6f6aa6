"""One connection from its first byte to its last: requests one after the other, on a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from overread.domain.events import RequestAnswered, Trouble
from overread.receive.intake import Intake
from overread.receive.stow.answer import RETRY_AFTER_S, answer, reason_of
from overread.receive.stow.body import Body, Chunked, Counted, CutOff, TooMuch
from overread.receive.stow.crowd import Crowd
from overread.receive.stow.doorkeeper import Doorkeeper, Guest, Turned, Visitor, bearer
from overread.receive.stow.exchange import Answer, Exchange, Refusal, read_head, respond, say_continue
from overread.receive.stow.finishing import Finishing
from overread.receive.stow.limits import Limits
from overread.receive.stow.multipart import Multipart
from overread.receive.stow.request import Order, judge
from overread.receive.stow.store import Outcome, Report, Store
from overread.receive.stow.wire import TooSlow, Wire
from overread.receive.tls import Tls

EPILOGUE_BYTES = 4 << 10

# Makes a connected socket one of TLS, on the connection's own thread; may leave the handshake to be done there, which
# keeps it within reach of whoever hangs up. Raises OSError.
Secure = Callable[[socket.socket], socket.socket]
# The AE title that the certificate of a secured connection stands for, None when it has none.
TitleOf = Callable[[ssl.SSLSocket], str | None]


@dataclass(frozen=True)
class Site:
    """What every connection works with. ``path`` is where ``/studies`` begins; ``left`` is told what a guest sent."""

    path: str
    intake: Intake
    doorkeeper: Doorkeeper
    limits: Limits
    secure: Secure | None = None
    title_of: TitleOf | None = None
    left: Callable[[Guest, int], None] | None = None
    finishing: Finishing[Outcome] = field(default_factory=Finishing)
    crowd: Crowd = field(default_factory=Crowd)


class Connection:
    """Serves one wire; ``serve`` returns when it is over and never raises.

    ``make_way`` frees a place for a request of this one where all are taken; False when it cannot.
    """

    def __init__(self, wire: Wire, address: str, site: Site, make_way: Callable[[Connection], bool]) -> None:
        self.wire, self.address, self._site, self._make_way = wire, address, site, make_way
        self._title: str | None = None
        self._names: tuple[str, ...] = ()

    def serve(self) -> None:
        """Answer requests until either side has had enough."""
        try:
            if self._secured():
                self._serve_all()
        except Exception as error:
            # The edge of this thread: a fault of ours ends one connection, and no acknowledgement is sent after it.
            self._site.intake.tell(Trouble("receive", type(error).__name__))
            respond(self.wire, None, Answer.plain(500, "the server failed; try again"), keep=False)
        finally:
            self.wire.close()

    def _secured(self) -> bool:
        site = self._site
        if site.secure is None:
            return True
        try:
            self.wire.plug.settimeout(site.limits.header_s)
            self.wire.wrapped(site.secure(self.wire.plug))
            if isinstance(self.wire.plug, ssl.SSLSocket):
                self.wire.plug.do_handshake()  # within the time-out as a whole; nothing when it is done already
        except OSError:  # of TLS, or of a peer that went away: health checks do
            return False
        if isinstance(self.wire.plug, ssl.SSLSocket):
            self._names = Tls.names_of(self.wire.plug)
            self._title = site.title_of(self.wire.plug) if site.title_of is not None else None
        return True

    def _serve_all(self) -> None:
        limits = self._site.limits
        patience_s = limits.header_s
        while True:
            self.wire.begin_head()
            try:
                exchange = read_head(self.wire, limits.header_bytes, patience_s, limits.header_s)
            except Refusal as refusal:
                respond(self.wire, None, refusal.answer, keep=False)
                self._tell(refusal.status, refusal.reason)
                self.wire.linger()
                return
            if exchange is None or not self._serve_one(exchange):
                return
            patience_s = limits.idle_s

    def _serve_one(self, exchange: Exchange) -> bool:
        """Whether another request may follow."""
        started, report, complete = time.monotonic(), Report(), False
        guest: Guest | None = None
        try:
            guest, order = self._admitted(exchange)
            say_continue(self.wire, exchange)
            report, complete = self._stored(guest, order)
            said, why = answer(report, order.answer_type), reason_of(report)
        except Refusal as refusal:
            said, why = refusal.answer, refusal.reason
            complete = exchange.bodyless
        finally:
            if guest is not None and self._site.left is not None:
                self._site.left(guest, report.size_bytes)
        keep = complete and exchange.keeps
        heard = respond(self.wire, exchange, said, keep=keep)
        self._tell(said.status, why, guest=guest, report=report, seconds=time.monotonic() - started)
        if heard and not complete:
            self.wire.linger()
        return heard and keep

    def _tell(
        self, status: int, why: str, *, guest: Guest | None = None, report: Report | None = None, seconds: float = 0.0
    ) -> None:
        counts = (len(report.stored), len(report.failed)) if report is not None else (0, 0)
        calling_ae = guest.calling_ae if guest is not None else ""
        self._site.intake.tell(RequestAnswered(calling_ae, self.address, status, *counts, seconds, why))

    def _admitted(self, exchange: Exchange) -> tuple[Guest, Order]:
        """Who asks, and for what; raises Refusal."""
        token = bearer(exchange.one("authorization"))
        guest = self._asked(Visitor(self.address, token, self._title, self._names))
        if not isinstance(guest, Guest):
            fields = [("Retry-After", str(guest.retry_after_s))] if guest.retry_after_s else []
            if guest.status == 401:
                error = ', error="invalid_token"' if token is not None else ""
                fields.append(("WWW-Authenticate", f'Bearer realm="overread"{error}'))
            raise Refusal(guest.status, guest.reason, fields)
        try:
            order = judge(exchange, self._site.path, self._site.limits)
            if not self._site.intake.room():
                raise Refusal(503, "the spool is full; try again later", [("Retry-After", str(RETRY_AFTER_S))])
        except Refusal:
            if self._site.left is not None:
                self._site.left(guest, 0)
            raise
        return guest, order

    def _asked(self, visitor: Visitor) -> Guest | Turned:
        """The doorkeeper's word. Where all places are taken, whoever sends slowest makes way, as among connections."""
        guest = self._site.doorkeeper(visitor)
        if isinstance(guest, Turned) and guest.crowded:
            return self._site.crowd.wait(lambda: self._site.doorkeeper(visitor), lambda: self._make_way(self))
        return guest

    def _stored(self, guest: Guest, order: Order) -> tuple[Report, bool]:
        """What became of the body, and whether all of it was read."""
        limits = self._site.limits
        self.wire.begin_body()
        body: Body = Counted(self.wire, order.length) if order.length else Chunked(self.wire, limits.request_bytes)
        multipart = Multipart(body.read_into, order.boundary, limits.header_bytes)
        report = Store(self._site.intake, self._site.finishing, guest, order.study, limits).take(multipart)
        if multipart.closed:
            _skip_epilogue(body)
        body.give_back()
        return report, body.complete


def _skip_epilogue(body: Body) -> None:
    """What follows the last boundary means nothing (RFC 2046 Section 5.1.1), nor does it if it breaks off."""
    room = memoryview(bytearray(EPILOGUE_BYTES))
    with contextlib.suppress(CutOff, TooMuch, TooSlow):
        while body.read_into(room):
            continue
