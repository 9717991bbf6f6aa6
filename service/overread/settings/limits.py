"""Checks of single values, each with an error that names the file, the key and what it can be."""

from __future__ import annotations

from overread.domain.errors import ConfigError

NO_LIMIT = 1e12  # what nobody would write; infinity and "nan", which TOML knows, are above it or in no range


def choice(value: str, known: tuple[str, ...], key: str, source: str) -> None:
    """Raises ConfigError when ``value`` is none of ``known``."""
    if value not in known:
        raise ConfigError(f"{source}: {key} is {value!r}; it can be {' or '.join(known)}")


def within(value: float, low: float, high: float, source: str, where: str) -> None:
    """Raises ConfigError when ``value`` lies outside ``low`` to ``high``."""
    if not low <= value <= high:
        limits = f"lie between {low:g} and {high:g}" if high < NO_LIMIT else f"be at least {low:g}"
        raise ConfigError(f"{source}: {where} is {value}; it must {limits}")


def at_least(part: object, least: dict[str, float], source: str, section: str) -> None:
    """Raises ConfigError when a value of ``part`` lies below what ``least`` says for its name."""
    for name, low in least.items():
        within(getattr(part, name), low, NO_LIMIT, source, f"{section}.{name}")


def ae_title(value: str, source: str, where: str) -> None:
    """Raises ConfigError when ``value`` is no AE title (PS3.5 6.2)."""
    if not value.strip() or len(value) > 16 or "\\" in value or not value.isascii() or not value.isprintable():
        raise ConfigError(
            f"{source}: {where} {value!r} is no AE title: 1 to 16 printable ASCII characters, no backslash (PS3.5 6.2)"
        )
