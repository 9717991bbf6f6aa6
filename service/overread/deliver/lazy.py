"""A destination that is made when it is needed: a wrong file of one holds up no other, and mending it is enough."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from overread.domain.delivery import Item, Proven, Told
from overread.domain.errors import ConfigError, NoConnection
from overread.ports import Destination


class LazyDestination:
    """What ``make`` makes; as long as that raises ConfigError, the destination cannot be reached, with that reason."""

    def __init__(self, name: str, make: Callable[[], Destination]) -> None:
        self.name = name
        self._make = make
        self._made: Destination | None = None
        self._lock = threading.Lock()

    @property
    def unasked(self) -> bool:
        """Whether its word is taken; known once it was made."""
        return bool(getattr(self._made, "unasked", False))

    def send(self, items: Sequence[Item]) -> Iterator[tuple[Item, Told]]:
        return self._there().send(items)

    def prove(self, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
        return self._there().prove(items)

    def check(self) -> str:
        return self._there().check()

    def rest(self) -> None:
        """Nothing is due."""
        self._tell("rest")

    def close(self) -> None:
        """Nothing will be due any more."""
        self._tell("close")

    def _tell(self, what: str) -> None:
        method = getattr(self._made, what, None)
        if method is not None:
            method()

    def _there(self) -> Destination:
        with self._lock:
            if self._made is None:
                try:
                    self._made = self._make()
                except ConfigError as error:
                    raise NoConnection(f"configuration fault: {error}") from None
            return self._made
