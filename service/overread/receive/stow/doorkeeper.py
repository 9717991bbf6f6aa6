"""Who may store: a bearer token or a client certificate, from a network that is on the allow-list."""

from __future__ import annotations

import hmac
import ipaddress
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from overread.domain.errors import ConfigError
from overread.receive.admission import Knock, Pass
from overread.receive.seats import Gate

ANYBODY = "STOW-RS"  # the sender's name when neither a token nor a certificate nor the allow-list gives one
LEAST_TOKEN_LETTERS = 16
MOST_TOKEN_FILE_BYTES = 64 << 10
REJECTED_TRANSIENT = 2  # PS3.8 Table 9-21
RETRY_AFTER_S = 5


@dataclass(frozen=True)
class Visitor:
    """Who asks: the address, the bearer token (RFC 6750), the AE title and names that a client certificate gives."""

    address: str
    token: str | None = None
    certificate_ae: str | None = None
    certificate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guest:
    """Who may store, by the name that the ledger, the log and the metrics use, and whom the guest called."""

    calling_ae: str
    called_ae: str
    pass_id: int = 0


@dataclass(frozen=True)
class Turned:
    """Who may not: an HTTP status (401, 403 or 503) and the reason. ``crowded``: somebody else's leaving helps."""

    status: int
    reason: str
    retry_after_s: int = 0
    crowded: bool = False


Doorkeeper = Callable[[Visitor], Guest | Turned]


class TokenFile:
    """The tokens of one sender: a line each, so that a new one can be given out before the old one goes.

    Read again whenever the file changes. Safe to use from many threads.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[bytes, ...] = ()

    def require(self) -> None:
        """Raises ConfigError, naming the remedy, when there is no token to compare with."""
        try:
            found = _tokens(self._path)
        except OSError as error:
            raise ConfigError(
                f"the token file {self._path} of {self.name!r} cannot be read ({error.strerror}); write a token of at "
                f"least {LEAST_TOKEN_LETTERS} letters to it, such as from: openssl rand -hex 32"
            ) from None
        if not found:
            raise ConfigError(
                f"the token file {self._path} of {self.name!r} holds no token of at least {LEAST_TOKEN_LETTERS} "
                "letters; write one, such as from: openssl rand -hex 32"
            )

    def holds(self, token: bytes) -> bool:
        """Whether ``token`` is one of them, in a time that does not tell how much of it is right."""
        same = False
        for known in self._now():
            same |= hmac.compare_digest(known, token)
        return same

    def _now(self) -> tuple[bytes, ...]:
        with self._lock:
            try:
                stat = self._path.stat()
                seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if seen != self._seen:
                    self._tokens, self._seen = _tokens(self._path), seen
            except OSError:  # a file that is gone holds no token
                self._tokens, self._seen = (), None
            return self._tokens


class AllowList:
    """The doorkeeper: ``allow`` is (AE title or ``*``, network), ``tokens`` those that are taken.

    Where there are tokens, everybody needs one, or a client certificate. Where there are none the address is enough:
    that is for loopback alone, see ``require_secret``.
    """

    def __init__(self, allow: Sequence[tuple[str, str]], tokens: Sequence[TokenFile], called_ae: str) -> None:
        self._allow = [(title, ipaddress.ip_network(network)) for title, network in allow]
        self._tokens = tokens
        self._called_ae = called_ae

    def __call__(self, visitor: Visitor) -> Guest | Turned:
        """Decide."""
        titles = self._titles(visitor.address)
        if not titles:
            return Turned(403, "this network address is not on the allow-list")
        calling = visitor.certificate_ae or self._owner(visitor.token)
        if calling is None:
            if self._tokens:
                reason = "no bearer token" if visitor.token is None else "this bearer token is not known"
                return Turned(401, reason)
            calling = ANYBODY if "*" in titles else titles[0]
        if "*" not in titles and calling not in titles:
            return Turned(403, f"{calling} is not on the allow-list for this network address")
        return Guest(calling, self._called_ae)

    def _titles(self, address: str) -> list[str]:
        host = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped:
            host = host.ipv4_mapped
        return [title for title, network in self._allow if host.version == network.version and host in network]

    def _owner(self, token: str | None) -> str | None:
        given, owner = (token or "").encode("utf-8", "surrogateescape"), None
        for file in self._tokens if token else ():  # all of them: where it was found must not show in the time
            if file.holds(given):
                owner = file.name
        return owner


class Admitting:
    """A doorkeeper that counts, too: whom ``inner`` lets in must also pass the gate that is there for associations.

    A request counts as an association for its time. Whoever lets a guest in calls ``leave``.
    """

    def __init__(self, inner: Doorkeeper, gate: Gate) -> None:
        self._inner, self._gate = inner, gate

    def __call__(self, visitor: Visitor) -> Guest | Turned:
        """Decide."""
        guest = self._inner(visitor)
        if isinstance(guest, Turned):
            return guest
        answer = self._gate.enter(Knock(guest.calling_ae, guest.called_ae, visitor.address, visitor.certificate))
        if isinstance(answer, Pass):
            return replace(guest, pass_id=answer.id)
        if answer.result == REJECTED_TRANSIENT:
            return Turned(503, f"not now ({answer.word}); try again later", RETRY_AFTER_S, answer.passes)
        return Turned(403, f"{guest.calling_ae} is not let in ({answer.word})")

    def leave(self, guest: Guest, size_bytes: int) -> None:
        """A request of so many bytes has been answered."""
        if guest.pass_id:
            self._gate.spend(guest.pass_id, size_bytes)
            self._gate.leave(guest.pass_id)


def require_secret(host: str, *, has_tokens: bool, has_certificates: bool) -> None:
    """Raises ConfigError when whoever reaches ``host`` could store without showing anything."""
    if has_tokens or has_certificates or _is_loopback(host):
        return
    raise ConfigError(
        f"receive.stow listens on {host}, beyond this machine, and asks nobody who they are: add a "
        "[[receive.stow.tokens]] table, or demand TLS client certificates, or set receive.stow.host to 127.0.0.1"
    )


def bearer(authorization: str | None) -> str | None:
    """The token in an Authorization field (RFC 6750 Section 2.1), None when there is none."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tokens(path: Path) -> tuple[bytes, ...]:
    with path.open("rb") as file:
        lines = file.read(MOST_TOKEN_FILE_BYTES).split()
    return tuple(line for line in lines if len(line) >= LEAST_TOKEN_LETTERS)
