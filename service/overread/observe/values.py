"""The values that labels take, and the buckets of histograms: what series exist before anything has happened."""

from __future__ import annotations

from typing import Final

STAGES: Final = ("load", "infer", "measure", "encode")
CANARY_OUTCOMES: Final = ("arrived", "failed")
OUTCOMES: Final = (
    *("verified", "accepted", "sent", "warned", "duplicate"),
    *("unreachable", "busy", "rejected", "misconfigured", "unproven"),
)
TURNS: Final = ("open", "closed")
REFUSALS: Final = (
    "calling-ae", "called-ae", "address", "certificate", "limit", "peer-limit", "rate", "quota", "storage-full",
)  # fmt: skip
DROPS: Final = ("silent", "crowded", "malformed", "too-long", "handshake-silent", "handshake-refused", "idle")
DISCREPANCIES: Final = ("unindexed", "missing", "unreadable", "half-written")
REPORTS: Final = ("same-association", "new-association", "unanswered", "unreachable", "refused", "gave-up", "nowhere")
ACTION_STATUSES: Final = (0x0000, 0x0112, 0x0115, 0x0120, 0x0123, 0x0212, 0x0213)  # PS3.7 Section 10.1.4.1.10
REMEDIES: Final = ("smaller", "cpu", "patience")
STATUSES: Final = (0x0110, 0x0117, 0x0122, 0x0124, 0xA700, 0xA900, 0xC000)  # PS3.4 Table B.2-1, PS3.7 Annex C
HTTP_STATUSES: Final = (200, 202, 400, 401, 403, 404, 405, 406, 408, 409, 411, 413, 415, 431, 500, 501, 503)

RECEIVE_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
STAGE_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 180, 300, 600, 900, 1800)
LOAD_S: Final = (0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
DELIVERY_S: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
WAIT_S: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)
LATENCY_S: Final = (30, 60, 90, 120, 180, 300, 450, 600, 900, 1200, 1800, 2700, 3600, 7200, 14400, 43200)
