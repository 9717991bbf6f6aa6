"""config/*.toml → frozen settings. An unknown key is refused, with the nearest known one named."""

from __future__ import annotations

import difflib
import ipaddress
import tomllib
import types
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from overread.domain.errors import ConfigError


@dataclass(frozen=True)
class Caller:
    """Who may associate: an AE title (``*`` for any) from a network (CIDR)."""

    ae_title: str = "*"
    network: str = "127.0.0.0/8"


@dataclass(frozen=True)
class Receive:
    """The DIMSE listener: its address, who may call, and its limits (bytes, seconds, free disk in MB).

    ``min_free_mb`` is the spool's high-water mark. ``durability`` none is for measuring only; ``layers`` false takes
    pynetdicom's upper layer as it comes.
    """

    ae_title: str = "OVERREAD"
    host: str = "127.0.0.1"
    port: int = 11112
    require_called_ae: bool = True
    allow: tuple[Caller, ...] = (Caller(), Caller(network="::1/128"))
    max_associations: int = 40
    max_pdu_bytes: int = 131072
    acse_timeout_s: float = 15.0
    dimse_timeout_s: float = 60.0
    network_timeout_s: float = 60.0
    min_free_mb: int = 1024
    durability: str = "full"
    layers: bool = True


@dataclass(frozen=True)
class Assemble:
    """A study is asked whether it is complete after ``quiet_s`` without a new instance, per modality if named."""

    quiet_s: float = 30.0
    quiet_by_modality_s: dict[str, float] = field(default_factory=lambda: {"CT": 30.0, "MR": 120.0, "US": 300.0})


@dataclass(frozen=True)
class Schedule:
    """``slots`` jobs at once, each under a lease that a dead worker cannot renew; ``device`` is auto, cpu or cuda:N."""

    slots: int = 1
    lease_s: float = 30.0
    device: str = "auto"
    cpu_threads: int = 0
    keep_warm: int = 2
    retry_s: float = 10.0


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
    timeout_s: float = 30.0
    first_retry_s: float = 5.0
    longest_retry_s: float = 900.0
    give_up_after_h: float = 168.0


@dataclass(frozen=True)
class Observe:
    """Metrics and health over HTTP, one port for each role; ``log`` is json or text."""

    host: str = "127.0.0.1"
    listen_port: int = 9601
    watch_port: int = 9602
    work_port: int = 9603
    log: str = "json"
    level: str = "INFO"


@dataclass(frozen=True)
class Retain:
    """How long the spool keeps the images and results of studies whose every job has ended.

    They go earlier, the oldest first, when all of them take more than ``max_gb`` (0: no limit) or when less than
    ``min_free_mb`` of the disk is free.
    """

    days: float = 14.0
    max_gb: float = 0.0
    min_free_mb: int = 2048


@dataclass(frozen=True)
class Settings:
    """All settings. ``data`` holds spool and ledger; ``ledger`` empty means SQLite in it."""

    data: str = "data"
    ledger: str = ""
    models: tuple[str, ...] = ("models",)
    receive: Receive = field(default_factory=Receive)
    assemble: Assemble = field(default_factory=Assemble)
    schedule: Schedule = field(default_factory=Schedule)
    deliver: tuple[Deliver, ...] = ()
    observe: Observe = field(default_factory=Observe)
    retain: Retain = field(default_factory=Retain)

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
    settings = typing.cast(Settings, _build(Settings, values, str(path), ""))
    _validate(settings, str(path))
    return _resolve(settings, path.resolve().parent)


def _build(kind: Any, values: Any, source: str, where: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: {where.rstrip('.') or 'the file'} must be a table")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{source}: unknown key {where}{unknown[0]!r}{_nearest(unknown[0], list(hints))}")
    given = {key: _convert(hints[key], value, source, f"{where}{key}") for key, value in values.items()}
    lacking = [f.name for f in fields(kind) if _required(f) and f.name not in given]
    if lacking:
        raise ConfigError(f"{source}: {where.rstrip('.') or 'the file'} needs the key {lacking[0]!r}")
    return kind(**given)


def _required(f: Any) -> bool:
    from dataclasses import MISSING

    return f.default is MISSING and f.default_factory is MISSING


def _nearest(key: str, known: list[str]) -> str:
    match = difflib.get_close_matches(key, known, 1, 0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; known keys: {', '.join(sorted(known))}"


def _convert(hint: Any, value: Any, source: str, where: str) -> Any:
    origin = typing.get_origin(hint)
    if is_dataclass(hint):
        return _build(hint, value, source, f"{where}.")
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{source}: {where} must be a list, written [ … ] or, for tables, [[{where}]]")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, v, source, f"{where}[{n}]") for n, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{source}: {where} must be a table")
        return {k: _convert(float, v, source, f"{where}.{k}") for k, v in value.items()}
    return _scalar(hint, value, source, where)


def _scalar(hint: Any, value: Any, source: str, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = typing.get_args(hint)[0]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ConfigError(f"{source}: {where} must be a {hint.__name__}, not {value!r}")
    return value


_CHOICES: dict[str, tuple[str, ...]] = {
    "receive.durability": ("full", "none"),
    "deliver.kind": ("dimse", "folder"),
    "deliver.proof": ("c-find", "none"),
    "observe.log": ("json", "text"),
    "observe.level": ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
}
_LEAST = {
    "receive.max_associations": 1,
    "receive.max_pdu_bytes": 4096,
    "receive.acse_timeout_s": 0.1,
    "receive.dimse_timeout_s": 0.1,
    "receive.network_timeout_s": 0.1,
    "receive.min_free_mb": 0,
    "assemble.quiet_s": 0,
    "schedule.lease_s": 1,
    "schedule.cpu_threads": 0,
    "schedule.keep_warm": 1,
    "schedule.retry_s": 0,
    "retain.days": 0,
    "retain.max_gb": 0,
    "retain.min_free_mb": 0,
}


def _validate(settings: Settings, source: str) -> None:
    _ae_title(settings.receive.ae_title, source, "receive.ae_title")
    _choice(settings.receive.durability, "receive.durability", source)
    o = settings.observe
    for port in (settings.receive.port, o.listen_port, o.watch_port, o.work_port):
        _range(port, 0, 65535, source, "a port")
    for key, least in _LEAST.items():
        section, name = key.split(".")
        _range(getattr(getattr(settings, section), name), least, 1e12, source, key)
    for caller in settings.receive.allow:
        _ae_title(caller.ae_title, source, "receive.allow: ae_title")
        try:
            ipaddress.ip_network(caller.network)
        except ValueError as error:
            raise ConfigError(f"{source}: receive.allow network {caller.network!r}: {error}") from None
    _range(settings.schedule.slots, 1, 64, source, "schedule.slots")
    _choice(o.log, "observe.log", source)
    _choice(o.level, "observe.level", source)
    names = [d.name for d in settings.deliver]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{source}: two destinations share the name {name!r}; names must differ")
    for destination in settings.deliver:
        _validate_destination(destination, source)


def _validate_destination(d: Deliver, source: str) -> None:
    _choice(d.kind, "deliver.kind", source)
    _choice(d.proof, "deliver.proof", source)
    if d.kind == "dimse":
        _ae_title(d.ae_title, source, f"deliver {d.name!r}: ae_title")
        if not d.host:
            raise ConfigError(f"{source}: deliver {d.name!r} needs a host")
        _range(d.port, 1, 65535, source, f"deliver {d.name!r}: port")
    elif not d.folder:
        raise ConfigError(f"{source}: deliver {d.name!r} needs a folder")


def _choice(value: str, key: str, source: str) -> None:
    if value not in _CHOICES[key]:
        raise ConfigError(f"{source}: {key} is {value!r}; it can be {' or '.join(_CHOICES[key])}")


def _range(value: float, low: float, high: float, source: str, where: str) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{source}: {where} is {value}; it must lie between {low} and {high}")


def _ae_title(value: str, source: str, where: str) -> None:
    if not value.strip() or len(value) > 16 or "\\" in value or not value.isascii() or not value.isprintable():
        raise ConfigError(
            f"{source}: {where} {value!r} is no AE title: 1 to 16 printable ASCII characters, no backslash (PS3.5 6.2)"
        )


def _resolve(settings: Settings, base: Path) -> Settings:
    from dataclasses import replace

    models = tuple(str(base / m) for m in settings.models)
    deliver = tuple(replace(d, folder=str(base / d.folder) if d.folder else "") for d in settings.deliver)
    return replace(settings, data=str(base / settings.data), models=models, deliver=deliver)
