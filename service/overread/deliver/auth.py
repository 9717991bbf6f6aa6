"""Who we are to a DICOMweb server: nobody, a password, a token, or OAuth2 client credentials. Secrets lie in files."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from overread.domain.errors import ConfigError, Unreachable

KINDS = ("none", "basic", "bearer", "oauth2")
_EARLY_S = 30.0
_USUAL_LIFE_S = 300.0


@dataclass(frozen=True)
class Credentials:
    """What each kind needs: ``basic`` a user and a password_file, ``bearer`` a token_file, ``oauth2`` (RFC 6749 4.4) a
    token_url, a client_id and a client_secret_file, with a scope where the server wants one."""

    kind: str = "none"
    user: str = ""
    password_file: str = ""
    token_file: str = ""
    token_url: str = ""
    client_id: str = ""
    client_secret_file: str = ""
    scope: str = ""

    def auth(self, name: str, verify: str | bool, timeout_s: float) -> AuthBase | None:
        """How requests are signed; raises ConfigError when something is missing."""
        if self.kind == "none":
            return None
        if self.kind == "basic":
            return _Basic(self.user, _Secret(name, "password_file", self.password_file))
        if self.kind == "bearer":
            return _Bearer(_Secret(name, "token_file", self.token_file))
        if self.kind == "oauth2":
            return ClientCredentials(name, self, verify, timeout_s)
        raise ConfigError(f"destination {name!r}: auth is {self.kind!r}; it can be {' or '.join(KINDS)}")


class _Secret:
    """A secret in a file, read anew for each request, so that it can be changed while the service runs."""

    def __init__(self, name: str, key: str, path: str) -> None:
        self._name, self._key, self._path = name, key, path
        self.read()

    def read(self) -> str:
        try:
            return Path(self._path).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            said = f"{self._key} {self._path!r} cannot be read ({why})"
            raise ConfigError(f"destination {self._name!r}: {said}") from None


class _Basic(AuthBase):
    def __init__(self, user: str, secret: _Secret) -> None:
        self._user, self._secret = user, secret

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        signed: requests.PreparedRequest = HTTPBasicAuth(self._user.encode(), self._secret.read().encode())(request)
        return signed


class _Bearer(AuthBase):
    def __init__(self, secret: _Secret) -> None:
        self._secret = secret

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._secret.read()}"
        return request


class ClientCredentials(AuthBase):
    """OAuth2 client credentials: a token is asked for when there is none, or the one that there is ends soon."""

    def __init__(self, name: str, credentials: Credentials, verify: str | bool, timeout_s: float) -> None:
        self._name, self._wanted, self._verify, self._timeout_s = name, credentials, verify, timeout_s
        self._secret = _Secret(name, "client_secret_file", credentials.client_secret_file)
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token()}"
        return request

    def forget(self) -> None:
        """The server does not take the token, whatever its life."""
        with self._lock:
            self._token, self._until = "", 0.0

    def token(self) -> str:
        """A token that lives. Raises Unreachable when the token server gives none."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._token, life_s = self._fetch()
                self._until = time.monotonic() + max(1.0, life_s - _EARLY_S)
            return self._token

    def _fetch(self) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"} | ({"scope": self._wanted.scope} if self._wanted.scope else {})
        who = HTTPBasicAuth(self._wanted.client_id, self._secret.read())
        try:
            answer = requests.post(
                self._wanted.token_url, data=form, auth=who, timeout=self._timeout_s, verify=self._verify
            )
            if answer.status_code != 200:
                said = f"it answered {answer.status_code}; check client_id and client_secret_file"
                raise Unreachable(f"destination {self._name!r}: no token from {self._wanted.token_url}: {said}")
            values = answer.json()
            return str(values["access_token"]), float(values.get("expires_in") or _USUAL_LIFE_S)
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            said = f"no token from {self._wanted.token_url} ({type(error).__name__}); is token_url right?"
            raise Unreachable(f"destination {self._name!r}: {said}") from None
