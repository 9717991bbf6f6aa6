"""config/*.toml → frozen settings. An unknown key is refused, with the nearest known one named."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from overread.domain.errors import ConfigError
from overread.settings import deliver, encode, receive, service
from overread.settings.deliver import Deliver
from overread.settings.encode import Encode
from overread.settings.reading import build
from overread.settings.receive import Called, Caller, Commitment, CommitmentPeer, Limits, Receive, Tls
from overread.settings.service import Assemble, Canary, Observe, Retain, Schedule

__all__ = [
    "Assemble",
    "Called",
    "Caller",
    "Canary",
    "Commitment",
    "CommitmentPeer",
    "Deliver",
    "Encode",
    "Limits",
    "Observe",
    "Receive",
    "Retain",
    "Schedule",
    "Settings",
    "Tls",
    "read_settings",
]


@dataclass(frozen=True)
class Settings:
    """All settings. ``data`` holds spool and ledger; ``ledger`` empty means SQLite in it."""

    data: str = "data"
    ledger: str = ""
    models: tuple[str, ...] = ("models",)
    receive: Receive = field(default_factory=Receive)
    assemble: Assemble = field(default_factory=Assemble)
    schedule: Schedule = field(default_factory=Schedule)
    encode: Encode = field(default_factory=Encode)
    deliver: tuple[Deliver, ...] = ()
    observe: Observe = field(default_factory=Observe)
    retain: Retain = field(default_factory=Retain)
    canary: Canary = field(default_factory=Canary)

    @property
    def data_path(self) -> Path:
        return Path(self.data)

    @property
    def ledger_url(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger or f"sqlite:///{self.data_path / 'ledger.sqlite'}"


def read_settings(path: Path | None) -> Settings:
    """Read a settings file; None gives the defaults. Relative paths in it are relative to the file.

    Raises ConfigError that names the file, the key and the remedy.
    """
    if path is None:
        return Settings()
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from None
    except ValueError as error:  # of TOML or of UTF-8
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    settings = cast(Settings, build(Settings, values, str(path), ""))
    _check(settings, str(path))
    return _resolve(settings, path.resolve().parent)


def _check(settings: Settings, source: str) -> None:
    receive.check(settings.receive, source)
    service.check(settings.assemble, settings.schedule, settings.observe, settings.retain, source)
    encode.check(settings.encode, source)
    deliver.check(settings.deliver, source)
    service.check_canary(settings.canary, has_destination=any(d.canary for d in settings.deliver), source=source)


def _resolve(settings: Settings, base: Path) -> Settings:
    models = tuple(str(base / m) for m in settings.models)
    destinations = tuple(_beside(d, base) for d in settings.deliver)
    coming = receive.resolve(settings.receive, base)
    canary = replace(settings.canary, study=str(base / settings.canary.study) if settings.canary.study else "")
    placed = replace(settings, data=str(base / settings.data), models=models, receive=coming, canary=canary)
    return replace(placed, deliver=destinations)


def _beside(d: Deliver, base: Path) -> Deliver:
    placed: dict[str, Any] = {key: str(base / getattr(d, key)) for key in deliver.FILES if getattr(d, key)}
    return replace(d, **placed)
