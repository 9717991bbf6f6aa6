"""Where a result comes from, as digests: with these four and the same program, the same result is made again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Style:
    """How results present themselves, the same in each study.

    ``first_series_number``: the number of a model's first series, unless its card has one of its own, is this plus a
    number that depends on the model's name alone. ``series_description`` may use ``{title}``, ``{name}``, ``{version}``
    (of the model) and ``{kind}``.
    """

    first_series_number: int = 9001
    series_description: str = "{title} {kind}"

    def digest(self) -> str:
        """SHA-256 of everything in it."""
        lines = "".join(f"{f.name}={getattr(self, f.name)!r}\n" for f in fields(self))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class Provenance:
    """SHA-256 of the model's weights, of its card and configs, of the input (UIDs and contents of its slices, in
    order), and of the settings that shape results."""

    weights: str = ""
    card: str = ""
    input: str = ""
    settings: str = ""

    def __str__(self) -> str:
        return " ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self))

    @classmethod
    def of(cls, text: str) -> Provenance:
        """The opposite of ``str``; what is not there is empty."""
        told = dict(part.partition("=")[::2] for part in text.split())
        return cls(**{f.name: told.get(f.name, "") for f in fields(cls)})
