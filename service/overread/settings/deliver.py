"""Where results go."""

from __future__ import annotations

from dataclasses import dataclass, replace

from overread.domain.errors import ConfigError
from overread.settings.limits import ae_title, choice, within
from overread.settings.profiles import COMPRESSION, EMPTY_FRAMES, METHODS, PROFILES, Profile, variants


@dataclass(frozen=True)
class Deliver:
    """One destination. ``kind`` dimse or folder; ``proof`` c-find or none (dimse), read-back (folder).

    ``viewer`` is a row of ``settings.profiles``; ``results``, ``segmentation``, ``compression`` and ``empty_frames``
    overrule it where they say anything. ``withdraw``: none, or rejection-note for what a later result replaces.
    """

    name: str
    kind: str = "dimse"
    ae_title: str = ""
    host: str = ""
    port: int = 104
    folder: str = ""
    proof: str = "c-find"
    viewer: str = "basic"
    results: tuple[str, ...] = ()
    segmentation: tuple[str, ...] = ()
    compression: str = ""
    empty_frames: str = ""
    withdraw: str = "none"
    timeout_s: float = 30.0
    first_retry_s: float = 5.0
    longest_retry_s: float = 900.0
    give_up_after_h: float = 168.0

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
    choice(d.kind, ("dimse", "folder"), "deliver.kind", source)
    choice(d.proof, ("c-find", "none"), "deliver.proof", source)
    choice(d.viewer, tuple(PROFILES), "deliver.viewer", source)
    choice(d.compression or "deflate", COMPRESSION, "deliver.compression", source)
    choice(d.empty_frames or "omit", EMPTY_FRAMES, "deliver.empty_frames", source)
    choice(d.withdraw, ("none", "rejection-note"), "deliver.withdraw", source)
    for method in d.segmentation:
        choice(method, METHODS, "deliver.segmentation", source)
    if d.kind == "dimse":
        ae_title(d.ae_title, source, f"deliver {d.name!r}: ae_title")
        if not d.host:
            raise ConfigError(f"{source}: deliver {d.name!r} needs a host")
        within(d.port, 1, 65535, source, f"deliver {d.name!r}: port")
    elif not d.folder:
        raise ConfigError(f"{source}: deliver {d.name!r} needs a folder")
