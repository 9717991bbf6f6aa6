"""Media types with their parameters, quoted or not (RFC 9110 Sections 5.6 and 8.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BLANKS = " \t\r\n"


@dataclass(frozen=True)
class MediaType:
    """``name`` is type/subtype in lower case; ``parameters`` by their names in lower case, unquoted."""

    name: str
    parameters: Mapping[str, str]


def read_media_type(text: str) -> MediaType:
    """What a header field says. Never raises: what cannot be read is a name that nobody takes.

    A value with a slash in it must be quoted and often is not; it is taken up to the next semicolon.
    """
    name, *rest = split(text, ";")
    parameters: dict[str, str] = {}
    for piece in rest:
        key, sign, value = piece.partition("=")
        if sign:
            parameters.setdefault(key.strip(BLANKS).lower(), unquoted(value.strip(BLANKS)))
    return MediaType(name.strip(BLANKS).lower(), parameters)


def split(text: str, separator: str) -> list[str]:
    """The pieces between separators that stand outside quotation marks; blank ones are left out after the first."""
    pieces, start, quoted, escaped = [], 0, False, False
    for index, letter in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and letter == "\\":
            escaped = True
        elif letter == '"':
            quoted = not quoted
        elif letter == separator and not quoted:
            pieces.append(text[start:index])
            start = index + 1
    pieces.append(text[start:])
    return [pieces[0], *(piece for piece in pieces[1:] if piece.strip(BLANKS))]


def unquoted(value: str) -> str:
    """A quoted string without its marks and backslashes; a token as it is."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    letters, escaped = [], False
    for letter in value[1:-1]:
        if letter == "\\" and not escaped:
            escaped = True
        else:
            letters.append(letter)
            escaped = False
    return "".join(letters)
