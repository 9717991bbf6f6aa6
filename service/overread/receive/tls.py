"""The secure door: handshakes with a deadline, whom a certificate stands for, certificates renewed on the run."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from overread.domain.errors import ConfigError
from overread.domain.events import CertificateRead, CertificatesNotTaken
from overread.ports import Herald
from overread.receive.certificates import Terms, make_context, validities

LOOK_S = 2.0
LONGEST_AE = 16

TitleOf = Callable[[Collection[str]], str | None]


class Tls:
    """Makes connections secure. Safe to use from many threads.

    The files are looked at every few seconds when somebody calls, or ``refresh`` does: what is new and good is used
    for the connections that follow, what is new and bad is told and not used. Raises ConfigError when they are bad at
    first. ``title_of`` says which AE title a certificate with such names stands for.
    """

    def __init__(self, terms: Terms, herald: Herald, title_of: TitleOf | None = None) -> None:
        self.terms = terms
        self._herald = herald
        self._title_of = title_of or _first_title
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._looked = time.monotonic()
        self._forced = False
        self._context = make_context(terms)
        self._tell()

    def begin(self, plain: socket.socket) -> ssl.SSLSocket:
        """A connection whose handshake is still to come; it does not block. ``plain`` is used up. Raises OSError."""
        self.refresh()
        plain.setblocking(False)
        return self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)

    def secure(self, plain: socket.socket) -> ssl.SSLSocket:
        """The same with the handshake done in this thread, within its deadline; blocking afterwards. Raises OSError."""
        deadline = time.monotonic() + self.terms.handshake_timeout_s
        secured = self.begin(plain)
        try:
            while True:
                try:
                    secured.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    _wait(secured, select.POLLIN, deadline)
                except ssl.SSLWantWriteError:
                    _wait(secured, select.POLLOUT, deadline)
            secured.setblocking(True)
        except OSError:
            secured.close()
            raise
        return secured

    def wrap(self, plain: socket.socket) -> ssl.SSLSocket:
        """The same as ``begin``, with the time-out that ``plain`` had. Raises OSError."""
        timeout_s = plain.gettimeout()
        secured = self.begin(plain)
        secured.settimeout(timeout_s)
        return secured

    @staticmethod
    def names_of(secured: ssl.SSLSocket) -> tuple[str, ...]:
        """The names in the client's certificate: common name, then DNS names, URIs and mail addresses."""
        told: Any = secured.getpeercert() or {}
        common = [v for rdn in told.get("subject", ()) for k, v in rdn if k == "commonName"]
        others = [v for k, v in told.get("subjectAltName", ()) if k in ("DNS", "URI", "email") and isinstance(v, str)]
        return tuple(dict.fromkeys([*common, *others]))

    def ae_title_of(self, secured: ssl.SSLSocket) -> str | None:
        """The AE title that the client's certificate stands for; None when it stands for none, or there is none."""
        names = self.names_of(secured)
        return self._title_of(names) if names else None

    def reload_soon(self) -> None:
        """Read the files with the next ``refresh`` whether they look new or not; may be called in a signal handler."""
        self._forced = True

    def refresh(self) -> None:
        """Use the files' new content, if there is any; never raises."""
        now = time.monotonic()
        if not self._forced and now - self._looked < LOOK_S:
            return
        with self._lock:
            self._looked = now
            stamp, forced, self._forced = self._stamp(), self._forced, False
            if stamp == self._seen and not forced:
                return
            self._seen = stamp
            try:
                self._require_valid()
                self._context = make_context(self.terms)
            except ConfigError as error:
                self._herald(CertificatesNotTaken(str(error)))
                return
            self._tell()

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp_of(str(path)) for path in self.terms.files().values())

    def _require_valid(self) -> None:
        validity, now = validities(self.terms)["certificate"], time.time()
        if not validity.begins <= now <= validity.ends:
            state = "expired" if now > validity.ends else "not valid yet"
            raise ConfigError(f"receive.tls.certificate: {self.terms.certificate} is {state}")

    def _tell(self) -> None:
        for kind, validity in validities(self.terms).items():
            self._herald(CertificateRead(kind, validity.ends))


def _stamp_of(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino


def _wait(secured: ssl.SSLSocket, event: int, deadline: float) -> None:
    poll = select.poll()  # select() cannot see descriptors above 1,023
    poll.register(secured, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError("the TLS handshake took too long")


def _first_title(names: Collection[str]) -> str | None:
    return next((name for name in names if 0 < len(name) <= LONGEST_AE and name.isascii()), None)
