"""Pixels are decoded in the work role's children: what listens and what watches never loads a decoder."""

from __future__ import annotations

import subprocess
import sys

PARTS = {
    "listen": "overread.receive.listener, overread.receive.intake, overread.receive.clerk, overread.receive.index",
    "watch": "overread.assemble.quiet, overread.route.router, overread.spool.frames, overread.deliver.outbox",
}


def test_listener_and_watch_know_no_decoder() -> None:
    for role, modules in PARTS.items():
        code = f"import sys, overread.wiring, {modules}; print([m for m in sys.modules if 'overread.load' in m])"
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == "[]", role
