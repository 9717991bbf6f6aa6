"""Which layers are on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layers:
    """Switches, in the order in which the layers build on each other.

    ``fragments`` cuts what lies in the buffer of ``wire``, ``inline`` serves what ``fragments`` cuts, ``stream`` stores
    what ``inline`` serves; ``reactor`` and ``codec`` stand alone. Raises ValueError when one lacks what it builds on.
    """

    wire: bool = True
    reactor: bool = True
    fragments: bool = True
    inline: bool = True
    stream: bool = True
    codec: bool = True

    def __post_init__(self) -> None:
        built = [self.wire, self.fragments, self.inline, self.stream]
        if built != sorted(built, reverse=True):
            raise ValueError("fragments needs wire, inline needs fragments, and stream needs inline")


FAST = Layers()
STOCK = Layers(wire=False, reactor=False, fragments=False, inline=False, stream=False, codec=False)
