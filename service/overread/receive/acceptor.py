"""The listening socket, and who takes what comes in at it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

BACKLOG = 1024  # a flood that fills it costs everybody a second, until they try again


class Acceptor:
    """Accepts connections and gives them, with the peer's address, to ``take``."""

    def __init__(self, host: str, port: int, take: Callable[[socket.socket, Any], None]) -> None:
        self._address = (host, port)
        self._take = take
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Bind and accept in the background; raises OSError when the port is taken."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._socket = socket.create_server(self._address, family=family, backlog=BACKLOG)
        threading.Thread(target=self._accept, args=(self._socket,), name="accept", daemon=True).start()

    @property
    def port(self) -> int:
        """The port in use, also when 0 was asked for."""
        assert self._socket is not None
        return int(self._socket.getsockname()[1])

    def stop(self) -> None:
        """Accept no more."""
        listening, self._socket = self._socket, None
        if listening is not None:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _accept(self, listening: socket.socket) -> None:
        while self._socket is listening:
            try:
                connection, address = listening.accept()
            except OSError:  # closed, or no descriptor is left: not to be asked again at once for ever
                time.sleep(0.05)
                continue
            self._take(connection, address)
