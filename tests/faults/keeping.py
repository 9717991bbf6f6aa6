"""A pool with the misbehaving model, which processes find, and volumes for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import mischief
import pytest

from overread.domain.card import Card, read_card
from overread.domain.events import Event
from overread.domain.geometry import stack
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.infer.pool import Terms, WorkerPool


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the engine in it, which processes find."""
    monkeypatch.syspath_prepend(str(mischief.install(tmp_path / "engine")))
    return tmp_path


@pytest.fixture
def card(house: Path) -> Card:
    return read_card(mischief.model(house / "models", runtime="timeout_s = 3\nattempts = 3\nmemory_mb = 400"))


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def pool(house: Path, events: list[Event]) -> Iterator[WorkerPool]:
    made = WorkerPool(events.append, device="cpu", terms=Terms(1, 0, "available", house / "workers"))
    yield made
    made.close()
    assert not list((house / "workers").glob("overread-model-*")), "a process left its folder"


@pytest.fixture
def volume(ct_headers: Callable[..., list[Instance]]) -> Callable[[str], Volume]:
    made = stack(ct_headers(6, rows=8, columns=9))
    return lambda deed: Volume(mischief.voxels(deed), made, ())
