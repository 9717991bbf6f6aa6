"""A small generated chest, written once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overread.domain.peer import Peer
from overread.simulate.pacs import Pacs
from overread.simulate.phantom import ChestPhantom, Grid, chest_phantom
from overread.simulate.study import write_study


@pytest.fixture(scope="session")
def phantom() -> ChestPhantom:
    return chest_phantom(7, Grid((24, 48, 64), (5.0, 6.0, 6.5)), nodules=1)


@pytest.fixture(scope="session")
def study(phantom: ChestPhantom, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The localizer and 24 slices."""
    return write_study(phantom, tmp_path_factory.mktemp("study"), seed=7, localizer=True, truth=True)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    with Pacs(tmp_path / "pacs") as running:
        yield running


@pytest.fixture
def peer(pacs: Pacs) -> Peer:
    return Peer(pacs.ae_title, pacs.host, pacs.port)
