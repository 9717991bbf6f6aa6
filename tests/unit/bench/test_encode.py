"""The bench of encoding runs, and its table names every way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_a_tiny_run_makes_a_table(tmp_path: Path) -> None:
    small = ["--slices", "6", "--size", "40", "--segments", "1", "--rounds", "1", "--folder", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(ROOT / "tests" / "bench" / "encode.py"), *small, "--json", str(tmp_path / "f.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for way in ("overread, deflated", "overread, explicit", "highdicom", "overread, headers and gate"):
        assert f"| 1 | {way} |" in done.stdout
    assert (tmp_path / "f.json").exists()
