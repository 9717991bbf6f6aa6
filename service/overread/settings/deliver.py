"""Where results go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from overread.domain.errors import ConfigError
from overread.settings.limits import ae_title, at_least, choice, within
from overread.settings.profiles import COMPRESSION, EMPTY_FRAMES, METHODS, PROFILES, Profile, variants

KINDS = ("dimse", "stow", "folder", "object-store")
PROOFS = {
    "dimse": ("auto", "c-find", "commitment", "c-get", "c-move", "none"),
    "stow": ("auto", "qido", "wado", "none"),
    "folder": ("auto", "read-back"),
    "object-store": ("auto", "read-back"),
}
AUTH = {
    "none": (),
    "basic": ("user", "password_file"),
    "bearer": ("token_file",),
    "oauth2": ("token_url", "client_id", "client_secret_file"),
}
FILES = ("folder", "ca", "certificate", "key", "password_file", "token_file", "client_secret_file", "options_file")
_LEAST: dict[str, float] = {
    "timeout_s": 0.1,
    "first_retry_s": 0.1,
    "longest_retry_s": 0.1,
    "give_up_after_h": 0,
    "opens_after": 1,
    "commitment_deadline_s": 1,
    "sweep_days": 0,
}


@dataclass(frozen=True)
class Deliver:
    """One destination. ``kind`` dimse, stow, folder or object-store; ``proof`` auto is the kind's usual one.

    ``viewer`` is a row of ``settings.profiles``; ``results``, ``segmentation``, ``compression`` and ``empty_frames``
    overrule it where they say anything. ``withdraw``: none, or rejection-note for what a later result
    replaces. ``canary``: it gets the canary's results and nothing else.
    Secrets lie in files (``…_file``), never here. Times are in the unit of their names.
    """

    name: str
    kind: str = "dimse"
    ae_title: str = ""
    host: str = ""
    port: int = 104
    calling_ae: str = ""
    url: str = ""
    folder: str = ""
    options_file: str = ""
    tls: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    auth: str = "none"
    user: str = ""
    password_file: str = ""
    token_file: str = ""
    token_url: str = ""
    client_id: str = ""
    client_secret_file: str = ""
    scope: str = ""
    viewer: str = "basic"
    results: tuple[str, ...] = ()
    segmentation: tuple[str, ...] = ()
    compression: str = ""
    empty_frames: str = ""
    proof: str = "auto"
    commitment_deadline_s: float = 3600.0
    commitment_fallback: str = ""
    move_ae_title: str = ""
    move_port: int = 0
    sweep_days: float = 3.0
    withdraw: str = "none"
    canary: bool = False
    order: str = "study"
    concurrency: int = 2
    timeout_s: float = 30.0
    first_retry_s: float = 5.0
    longest_retry_s: float = 900.0
    give_up_after_h: float = 168.0
    opens_after: int = 3

    @property
    def profile(self) -> Profile:
        """What its viewer's row of the capability table says, with what is said here in its place."""
        row = PROFILES[self.viewer]
        said = {k: v for k in ("results", "segmentation", "compression", "empty_frames") if (v := getattr(self, k))}
        return replace(row, **said)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which kinds of results it gets."""
        return (*self.profile.results, *(("rejection",) if self.withdraw == "rejection-note" else ()))

    @property
    def variants(self) -> tuple[str, ...]:
        """Which variants of a result (``domain.result``) it should get, the most wanted first."""
        return variants(self.profile)

    @property
    def deflated(self) -> bool:
        """Whether it may be asked to take deflated objects."""
        return self.profile.compression != "none"


def check(destinations: tuple[Deliver, ...], source: str) -> None:
    """Raises ConfigError for the first value that cannot be."""
    names = [d.name for d in destinations]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{source}: two destinations share the name {name!r}; names must differ")
    for destination in destinations:
        _check_one(destination, source)


def _check_one(d: Deliver, source: str) -> None:
    choice(d.kind, KINDS, "deliver.kind", source)
    choice(d.proof, PROOFS[d.kind], f"deliver {d.name!r}: proof for kind {d.kind!r}", source)
    choice(d.order, ("study", "none"), "deliver.order", source)
    choice(d.withdraw, ("none", "rejection-note"), "deliver.withdraw", source)
    _check_look(d, source)
    within(d.concurrency, 1, 16, source, f"deliver {d.name!r}: concurrency")
    at_least(d, _LEAST, source, f"deliver {d.name!r}")
    if d.key and not d.certificate:
        raise ConfigError(f"{source}: deliver {d.name!r} has a key and no certificate")
    {"dimse": _check_dimse, "stow": _check_stow}.get(d.kind, _check_place)(d, source)


def _check_look(d: Deliver, source: str) -> None:
    choice(d.viewer, tuple(PROFILES), "deliver.viewer", source)
    choice(d.compression or "deflate", COMPRESSION, "deliver.compression", source)
    choice(d.empty_frames or "omit", EMPTY_FRAMES, "deliver.empty_frames", source)
    for method in d.segmentation:
        choice(method, METHODS, "deliver.segmentation", source)


def _check_dimse(d: Deliver, source: str) -> None:
    ae_title(d.ae_title, source, f"deliver {d.name!r}: ae_title")
    if not d.host:
        raise ConfigError(f"{source}: deliver {d.name!r} needs a host")
    within(d.port, 1, 65535, source, f"deliver {d.name!r}: port")
    if d.calling_ae:
        ae_title(d.calling_ae, source, f"deliver {d.name!r}: calling_ae")
    if not d.tls and (d.ca or d.certificate):
        raise ConfigError(f"{source}: deliver {d.name!r} has certificates and tls = false; set tls = true")
    choice(d.commitment_fallback, ("", "c-find", "c-get"), "deliver.commitment_fallback", source)
    if d.proof == "c-move":
        ae_title(d.move_ae_title, source, f"deliver {d.name!r}: proof c-move needs a move_ae_title, which")
        within(d.move_port, 1, 65535, source, f"deliver {d.name!r}: proof c-move needs a move_port, which")


def _check_stow(d: Deliver, source: str) -> None:
    if urlsplit(d.url).scheme not in ("http", "https") or not urlsplit(d.url).hostname:
        raise ConfigError(f"{source}: deliver {d.name!r} needs a url that begins with http:// or https://")
    choice(d.auth, tuple(AUTH), "deliver.auth", source)
    for key in AUTH[d.auth]:
        if not getattr(d, key):
            raise ConfigError(f"{source}: deliver {d.name!r}: auth = {d.auth!r} needs {key}")


def _check_place(d: Deliver, source: str) -> None:
    key = "folder" if d.kind == "folder" else "url"
    if not getattr(d, key):
        raise ConfigError(f"{source}: deliver {d.name!r} needs a {key}")
