"""The socket under an association over TLS: never blocking below, for a record that does not end must block nobody."""

from __future__ import annotations

import select
import ssl
import time

from pynetdicom import evt

from overread.receive.upper_layer.wire import WireSocket


class SecureWireSocket(WireSocket):
    """A ``WireSocket`` on an ``ssl.SSLSocket``.

    TLS comes in records of at most 16 KiB, so that one read takes as many as there are. A blocking SSL socket would
    wait for ever for the rest of a record, whatever time-out its descriptor has.
    """

    _stall_s: float

    def equip(self, longest_pdu_bytes: int, stall_s: float, *, streaming: bool) -> None:
        super().equip(longest_pdu_bytes, stall_s, streaming=streaming)
        self._stall_s = stall_s
        self.socket.setblocking(False)

    @property
    def holds_back(self) -> bool:
        return self.socket is not None and self.socket.pending() > 0

    def _read_once(self, room: memoryview, wait: bool) -> int:
        count, deadline = 0, time.monotonic() + self._stall_s
        while count < len(room):
            try:
                got = self.socket.recv_into(room[count:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if count:
                    return count
                if not wait or not self._wait(select.POLLIN, deadline):
                    raise BlockingIOError from None
            else:
                count += got
                if not got:
                    break
        return count

    def send(self, bytestream: bytes) -> None:
        """All of it, or the connection has ended."""
        rest, deadline = memoryview(bytestream), time.monotonic() + self._stall_s
        try:
            while rest:
                try:
                    rest = rest[self.socket.send(rest) :]
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
                    wanted = select.POLLIN if isinstance(error, ssl.SSLWantReadError) else select.POLLOUT
                    if not self._wait(wanted, deadline):
                        raise TimeoutError from None
        except (OSError, AttributeError):  # the latter when it was closed meanwhile
            self.event_queue.put("Evt17")
            return
        evt.trigger(self.assoc, evt.EVT_DATA_SENT, {"data": bytestream})

    def _wait(self, event: int, deadline: float) -> bool:
        poll = select.poll()  # select() cannot see descriptors above 1,023
        poll.register(self.socket, event)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
