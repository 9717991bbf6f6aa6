"""Fixtures that the journeys and the faults share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from house import Service, tiny_model, write_settings


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with one tiny model in it."""
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture
def service(tmp_path: Path, tiny_models: Path) -> Iterator[Callable[..., Service]]:
    """Make a service that is not started yet: ``deliver`` its destinations, ``role`` to run one role only, ``models``
    instead of the tiny one, and settings tables by name."""
    made: list[Service] = []

    def make(
        deliver: list[dict[str, Any]] | None = None,
        role: str = "",
        models: Path | None = None,
        **tables: dict[str, Any],
    ) -> Service:
        folder = tmp_path / f"service-{len(made)}"
        folder.mkdir()
        made.append(Service(write_settings(folder, models or tiny_models, deliver or [], **tables), role))
        return made[-1]

    yield make
    for one in made:
        one.end()
