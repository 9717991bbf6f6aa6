"""Results go home. One file and one line in ``DESTINATIONS`` is a new kind of destination."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from overread.domain.errors import ConfigError
from overread.ports import Destination

DESTINATIONS = {
    "dimse": "overread.deliver.dimse:DimseDestination",
    "stow": "overread.deliver.stow:StowDestination",
    "folder": "overread.deliver.folder:FolderDestination",
    "object-store": "overread.deliver.object_store:ObjectStoreDestination",
}
ENTRY_POINTS = "overread.destinations"


def destination(kind: str, **options: Any) -> Destination:
    """Make the destination of ``kind``, a key of ``DESTINATIONS`` or the name of an entry point, with its options.

    Raises ConfigError when nobody knows the kind, or when the options are not what it takes.
    """
    maker = _maker(kind)
    try:
        made: Destination = maker(**options)
    except TypeError as error:
        raise ConfigError(f"a destination of kind {kind!r} cannot be made of these options: {error}") from None
    return made


def _maker(kind: str) -> Any:
    if kind in DESTINATIONS:
        module, _, name = DESTINATIONS[kind].partition(":")
        return getattr(import_module(module), name)
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if kind not in found:
        raise ConfigError(f"no destination of kind {kind!r}; known kinds: {', '.join(sorted({*DESTINATIONS, *found}))}")
    return found[kind].load()
