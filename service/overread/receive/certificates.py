"""TLS as PS3.15 has it (Section B.12 and B.13): a context made of PEM files, and until when those are good."""

from __future__ import annotations

import base64
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from overread.domain.errors import ConfigError

# RFC 9325 Section 4.2, for TLS 1.2; of TLS 1.3 all suites are good, and OpenSSL's own order is kept.
SUITES = {
    "bcp195": (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
    "bcp195-modified": (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
}
STRENGTH = "@SECLEVEL=2"  # no RSA key below 2048 bits, no signature by SHA-1
DEMANDS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
BLOCK = re.compile(rb"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----(?P<body>[^-]+)-----END (?P=kind)-----")
CERTIFICATE, CRL = b"CERTIFICATE", b"X509 CRL"
SEQUENCE, UTC_TIME, GENERALIZED_TIME, VERSION, INTEGER = 0x30, 0x17, 0x18, 0xA0, 0x02


@dataclass(frozen=True)
class Terms:
    """What TLS is spoken with: PEM files, whether clients must show a certificate (none, optional, required), and the
    seconds that a handshake may take."""

    certificate: Path
    key: Path
    client_certificates: str = "none"
    client_ca: Path | None = None
    crl: Path | None = None
    profile: str = "bcp195"
    handshake_timeout_s: float = 10.0

    def files(self) -> dict[str, Path]:
        """All files, by their name in the settings."""
        named = {"certificate": self.certificate, "key": self.key, "client_ca": self.client_ca, "crl": self.crl}
        return {name: path for name, path in named.items() if path is not None}


@dataclass(frozen=True)
class Validity:
    """From when to when something is good, in seconds since the epoch."""

    begins: float
    ends: float


class _Encrypted(Exception):
    """The key asks for a password."""


def make_context(terms: Terms) -> ssl.SSLContext:
    """A server's context; raises ConfigError that names the file, what is wrong with it and the remedy."""
    for name, path in terms.files().items():
        _read(name, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join((*SUITES[terms.profile], STRENGTH)))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # No session is resumed: it would not be asked again whether its certificate has been revoked.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load_own(context, terms)
    context.verify_mode = DEMANDS[terms.client_certificates]
    if terms.client_ca is not None:
        _load(context, "client_ca", terms.client_ca)
    if terms.crl is not None:
        _load(context, "crl", terms.crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def validities(terms: Terms) -> dict[str, Validity]:
    """Of the server's certificate, and of the client CAs and revocation lists where they are: the one that ends first.

    Raises ConfigError for a file that cannot be read.
    """
    kinds = {"certificate": CERTIFICATE, "client_ca": CERTIFICATE, "crl": CRL}
    found = {}
    for name, path in terms.files().items():
        if name not in kinds:
            continue
        blocks = [m["body"] for m in BLOCK.finditer(_read(name, path)) if m["kind"] == kinds[name]]
        if name == "certificate":
            blocks = blocks[:1]  # what follows are the CAs between it and the root
        try:
            all_of_them = [_validity(base64.b64decode(block), crl=name == "crl") for block in blocks]
        except (ValueError, IndexError):
            all_of_them = []
        if not all_of_them:
            raise ConfigError(f"receive.tls.{name}: {path} holds no {kinds[name].decode().title()} in PEM form")
        found[name] = min(all_of_them, key=lambda v: v.ends)
    return found


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"receive.tls.{name}: cannot read {path}: {error.strerror}") from None


def _load_own(context: ssl.SSLContext, terms: Terms) -> None:
    def password() -> str:
        raise _Encrypted

    try:
        context.load_cert_chain(terms.certificate, terms.key, password)
    except _Encrypted:
        raise ConfigError(
            f"receive.tls.key: {terms.key} is encrypted, and nobody is there to type its password: write it without "
            f"one (openssl pkey -in {terms.key} -out PLAIN), readable for this user only"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"receive.tls.key: {terms.key} is not the key of {terms.certificate}; put the two that belong together"
            ) from None
        raise ConfigError(
            f"receive.tls.certificate or key: {terms.certificate} and {terms.key} must be PEM files, at least RSA 2048 "
            f"or ECDSA 224 ({(error.reason or 'unknown').replace('_', ' ').lower()})"
        ) from None


def _load(context: ssl.SSLContext, name: str, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        why = (error.reason or "unknown").replace("_", " ").lower()
        raise ConfigError(f"receive.tls.{name}: {path} holds nothing in PEM form that can be used ({why})") from None


def _validity(der: bytes, *, crl: bool) -> Validity:
    """Of a certificate or a revocation list (RFC 5280 Section 4.1 and 5.1): only as much DER as leads there."""
    outer = _value(der, 0)[1]
    inner = _value(outer, 0)[1]
    fields = [(tag, value) for tag, value, _ in _walk(inner)]
    if crl:
        times = [_time(tag, value) for tag, value in fields if tag in (UTC_TIME, GENERALIZED_TIME)]
        return Validity(times[0], times[1] if len(times) > 1 else float("inf"))
    # version, serial number, signature, issuer, validity
    sequences = [value for tag, value in fields if tag == SEQUENCE]
    begins, ends = (_time(tag, value) for tag, value, _ in _walk(sequences[2]))
    return Validity(begins, ends)


def _walk(der: bytes) -> list[tuple[int, bytes, int]]:
    at, found = 0, []
    while at < len(der):
        tag, value, at = _value(der, at)
        found.append((tag, value, at))
    return found


def _value(der: bytes, at: int) -> tuple[int, bytes, int]:
    """Tag and value of the element at an offset, and where the next one is (X.690 Section 8.1)."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(der[at : at + count], "big"), at + count
    if at + length > len(der):
        raise ValueError("cut off")
    return tag, der[at : at + length], at + length


def _time(tag: int, value: bytes) -> float:
    form = "%y%m%d%H%M%SZ" if tag == UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(value.decode("ascii"), form).replace(tzinfo=UTC).timestamp()
