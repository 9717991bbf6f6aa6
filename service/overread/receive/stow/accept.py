"""Which representation of the answer the sender takes (RFC 9110 Section 12.5.1, PS3.18 Section 8.7)."""

from __future__ import annotations

import contextlib

from overread.receive.stow.media import read_media_type, split

JSON, XML = "application/dicom+json", "application/dicom+xml"
# The first is the default (PS3.18 Section 10.5.3). The last two are what older clients call them.
OFFERS = (JSON, XML, "application/json", "application/xml")


def negotiate(accept: str | None) -> str | None:
    """The media type to answer in; None when the sender takes none of ours. No field, or an empty one, takes any."""
    if accept is None or not accept.strip():
        return JSON
    ranges = [_range(piece) for piece in split(accept, ",") if piece.strip()]
    best, chosen = 0.0, None
    for offer in OFFERS:
        quality = _quality(offer, ranges)
        if quality > best:
            best, chosen = quality, offer
    return chosen


def _range(text: str) -> tuple[str, float]:
    media = read_media_type(text)
    quality = 1.0
    with contextlib.suppress(ValueError):
        quality = float(media.parameters.get("q", "1"))
    return media.name, quality if 0 <= quality <= 1 else 1.0


def _quality(offer: str, ranges: list[tuple[str, float]]) -> float:
    # The most exact range that an offer falls under decides, wherever it stands.
    for name in (offer, "application/*", "*/*"):
        found = [quality for given, quality in ranges if given == name]
        if found:
            return max(found)
    return 0.0
