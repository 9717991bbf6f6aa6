"""A table of TOML → a frozen dataclass. An unknown key is refused, with the nearest known one named."""

from __future__ import annotations

import difflib
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from overread.domain.card import called
from overread.domain.errors import ConfigError


def build(kind: Any, values: Any, source: str, where: str) -> Any:
    """One dataclass of ``kind``; raises ConfigError that names the key."""
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
    return f.default is MISSING and f.default_factory is MISSING


def _nearest(key: str, known: list[str]) -> str:
    match = difflib.get_close_matches(key, known, 1, 0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; known keys: {', '.join(sorted(known))}"


def _convert(hint: Any, value: Any, source: str, where: str) -> Any:
    origin = typing.get_origin(hint)
    if is_dataclass(hint):
        return build(hint, value, source, f"{where}.")
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
        raise ConfigError(f"{source}: {where} must be {called(hint)}, not {value!r}")
    return value
