"""A certificate authority for tests: keys, certificates good and bad, revocation lists."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path
    serial: int = 0


class Authority:
    """Issues what tests ask for, as files in ``folder``. Times are days from now."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = folder / "ca.pem"
        builder = self._builder(self._name, self._key, begins=-10, ends=1000)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = {n: False for n in ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")}
        usage |= {n: False for n in ("key_agreement", "encipher_only", "decipher_only")}
        builder = builder.add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
        self.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))

    def issue(self, name: str, *, file: str = "", **how: Any) -> Identity:
        """A certificate for ``name``: ``begins`` and ``ends``, ``usage``, ``dns`` names, an ``rsa`` key of so many
        bits, a ``password`` for the key."""
        bits = how.get("rsa")
        key = rsa.generate_private_key(65537, bits) if bits else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, begins=how.get("begins", -1), ends=how.get("ends", 90))
        builder = builder.add_extension(x509.ExtendedKeyUsage([how.get("usage", CLIENT)]), critical=False)
        if names := how.get("dns", ()):
            others = x509.SubjectAlternativeName([x509.DNSName(n) for n in names])
            builder = builder.add_extension(others, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = self.folder / (file or name)
        found = Identity(stem.with_suffix(".pem"), stem.with_suffix(".key"), certificate.serial_number)
        password = how.get("password")
        locked: Any = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        found.key.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, locked))
        found.certificate.write_bytes(certificate.public_bytes(PEM))
        return found

    def server(self, *, file: str = "server", **how: Any) -> Identity:
        """A server's certificate."""
        return self.issue("localhost", file=file, usage=SERVER, **how)

    def revoke(self, *serials: int, ends: float = 30.0) -> Path:
        """A revocation list."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - timedelta(days=20)).next_update(now + timedelta(days=ends))
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(days=1))
            builder = builder.add_revoked_certificate(revoked.build())
        path = self.folder / "crl.pem"
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))
        return path

    def _builder(self, subject: x509.Name, key: Any, *, begins: float, ends: float) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=begins))
            .not_valid_after(now + timedelta(days=ends))
        )
