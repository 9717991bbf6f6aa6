"""What one data set may ask of us before it is refused, however hostile or broken it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes and counts of one data set.

    ``depth`` is how deeply sequences nest, ``frame_bytes`` what a header may announce for one frame, ``inflated_ratio``
    how many bytes one deflated byte may become, once they are more than ``inflate.ANY_RATIO_BYTES``.
    """

    instance_bytes: int = 8 << 30
    elements: int = 10_000_000
    depth: int = 64
    frame_bytes: int = 1 << 30
    inflated_bytes: int = 1 << 30
    inflated_ratio: int = 500


LIMITS = Limits()
# For what was judged before and lies in the spool: stricter settings do not make it unreadable.
LENIENT = Limits(1 << 62, 1 << 62, 1 << 20, 1 << 62, 1 << 40, 1 << 20)
