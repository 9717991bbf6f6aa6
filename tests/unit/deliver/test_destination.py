"""The table of destinations."""

from __future__ import annotations

import importlib

import pytest

from overread.deliver import DESTINATIONS, destination
from overread.domain.errors import ConfigError
from overread.domain.peer import Peer


@pytest.mark.parametrize("row", sorted(DESTINATIONS.values()))
def test_every_row_of_the_table_is_a_destination(row: str) -> None:
    module, _, name = row.partition(":")
    kind = getattr(importlib.import_module(module), name)
    assert all(callable(getattr(kind, method)) for method in ("send", "prove", "check"))


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="dimse, folder"):
        destination("carrier-pigeon", name="x")


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="folder"):
        destination("folder", name="x", port=4)


def test_an_unknown_proof_is_refused() -> None:
    with pytest.raises(ConfigError, match="c-find or none"):
        destination("dimse", name="x", peer=Peer("P", "127.0.0.1", 1), own_ae_title="OVERREAD", proof="hope")
