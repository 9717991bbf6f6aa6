"""Where results go."""

from __future__ import annotations

from dataclasses import dataclass

from overread.domain.errors import ConfigError
from overread.settings.limits import ae_title, choice, within


@dataclass(frozen=True)
class Deliver:
    """One destination. ``kind`` dimse or folder; ``proof`` c-find or none (dimse), read-back (folder)."""

    name: str
    kind: str = "dimse"
    ae_title: str = ""
    host: str = ""
    port: int = 104
    folder: str = ""
    proof: str = "c-find"
    results: tuple[str, ...] = ("seg", "sr")
    segmentation: tuple[str, ...] = ("binary",)
    timeout_s: float = 30.0
    first_retry_s: float = 5.0
    longest_retry_s: float = 900.0
    give_up_after_h: float = 168.0

    @property
    def variants(self) -> tuple[str, ...]:
        """Which variants of a result (``domain.result``) it should get, the most wanted first."""
        return self.segmentation


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
    if d.kind == "dimse":
        ae_title(d.ae_title, source, f"deliver {d.name!r}: ae_title")
        if not d.host:
            raise ConfigError(f"{source}: deliver {d.name!r} needs a host")
        within(d.port, 1, 65535, source, f"deliver {d.name!r}: port")
    elif not d.folder:
        raise ConfigError(f"{source}: deliver {d.name!r} needs a folder")
