"""A spool whose paths may be absolute."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from overread.spool import Spool

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", durable=False)
