"""How results present themselves."""

from __future__ import annotations

from overread.domain.errors import ConfigError
from overread.domain.provenance import Style
from overread.settings.limits import within

Encode = Style


def check(encode: Encode, source: str) -> None:
    """Raises ConfigError for the first value that cannot be."""
    within(encode.first_series_number, 1, 2**31 - 1000, source, "encode.first_series_number")
    try:
        text = encode.series_description.format(title="", name="", version="", kind="")
    except (KeyError, IndexError, ValueError):
        raise ConfigError(
            f"{source}: encode.series_description can have {{title}}, {{name}}, {{version}} and {{kind}} in braces"
        ) from None
    if len(text) > 48 or "\\" in text:
        raise ConfigError(
            f"{source}: encode.series_description must be shorter, and without a backslash (PS3.5 6.2, LO)"
        )
