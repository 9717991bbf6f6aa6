"""TLS towards a destination, with or without a certificate of our own (PS3.15 B.12: TLS 1.2 or later)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from overread.domain.errors import ConfigError


@dataclass(frozen=True)
class Tls:
    """PEM files: ``ca`` vouches for the destination (empty: the system's); ``certificate`` and ``key`` are ours."""

    ca: str = ""
    certificate: str = ""
    key: str = ""

    def context(self, name: str) -> ssl.SSLContext:
        """A context that verifies the destination. Raises ConfigError that names the file that cannot be used."""
        trusted = f"ca {self.ca}" if self.ca else "the system's certificates"
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"destination {name!r}: {trusted} cannot be read ({_why(error)})") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate:
            try:
                context.load_cert_chain(self.certificate, self.key or None)
            except (OSError, ssl.SSLError) as error:
                files = f"certificate {self.certificate} and key {self.key or 'in the same file'}"
                raise ConfigError(f"destination {name!r}: {files} cannot be used ({_why(error)})") from None
        return context


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
