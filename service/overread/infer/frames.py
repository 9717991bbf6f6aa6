"""What a model's process says, in frames: a length and JSON. Reading them never waits for the rest of one.

Nothing that comes is unpickled, no frame may be longer than MOST, and a message is one only when every field of it is
there and of its kind: ``Nonsense`` is the end of the process that said it.
"""

from __future__ import annotations

import json
import math
import re
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from overread.domain.reading import Box, Likelihood
from overread.infer.cage import Walls
from overread.infer.parcel import DTYPES, Packed, Parcel
from overread.infer.protocol import FAILURES, Done, Failed, Message, Progressed, Ready

MOST = 1 << 20
LENGTH = struct.Struct(">I")
_DEVICE = re.compile(r"[a-z]{1,16}(:\d{1,3})?")
Check = Callable[[Any], Any]


class Nonsense(Exception):
    """What came is no message of ours."""


def framed(message: Message) -> bytes:
    """A message as it is sent; raises ValueError when it cannot be told."""
    said = {"message": type(message).__name__, **asdict(message)}
    text = json.dumps(said, allow_nan=False, default=_plain, ensure_ascii=False).encode("utf-8", "replace")
    if len(text) > MOST:
        raise ValueError(f"the model's answer is too long: {len(text)} bytes beside its arrays, {MOST} at most")
    return LENGTH.pack(len(text)) + text


class Inbox:
    """The keeper's end of a channel. Nothing here waits longer than it is told to."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel, self._buffer = channel, bytearray()

    def next(self, patience_s: float) -> Message | None:
        """The next message, or None when there is none, or no whole one, in time.

        Raises Nonsense, EOFError when the channel is closed, OSError when it is broken.
        """
        deadline = time.monotonic() + patience_s
        while (message := self._whole()) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not self._is_more_within(left):
                return None
            try:
                piece = self._channel.recv(1 << 16)
            except BlockingIOError:
                continue
            if not piece:
                raise EOFError
            self._buffer += piece
        return message

    def _whole(self) -> Message | None:
        if len(self._buffer) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._buffer)
        if length > MOST:
            raise Nonsense
        end = LENGTH.size + length
        if len(self._buffer) < end:
            return None
        text = bytes(self._buffer[LENGTH.size : end])
        del self._buffer[:end]
        return understood(text)

    def _is_more_within(self, seconds: float) -> bool:
        descriptor = self._channel.fileno()
        if descriptor < 0:
            raise EOFError  # closed by whoever has ended the process
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        return bool(waiting.poll(max(1, int(seconds * 1000))))


def understood(text: bytes) -> Message:
    """The message that ``text`` is; raises Nonsense."""
    try:
        said = json.loads(text, parse_constant=_refuse)
        make, fields = MESSAGES[said.pop("message")]
        message: Message = make(**_checked(said, fields))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Nonsense from None
    return message


def _checked(said: dict[str, Any], fields: dict[str, Check]) -> dict[str, Any]:
    if not isinstance(said, dict) or set(said) != set(fields):
        raise ValueError
    return {name: check(said[name]) for name, check in fields.items()}


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _fraction(value: Any) -> float:
    if not 0.0 <= _number(value) <= 1.0:
        raise ValueError
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    value.encode()  # half a surrogate cannot be written anywhere
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _device(value: Any) -> str:
    if not _DEVICE.fullmatch(_text(value)):
        raise ValueError
    return str(value)


def _one_of(known: tuple[str, ...]) -> Check:
    def check(value: Any) -> str:
        if _text(value) not in known:
            raise ValueError
        return str(value)

    return check


def _many(each: Check, exactly: int | None = None) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or (exactly is not None and len(value) != exactly):
            raise ValueError
        return tuple(each(one) for one in value)

    return check


def _made(make: Callable[..., Any], **fields: Check) -> Check:
    return lambda value: make(**_checked(value, fields))


def _refuse(_name: str) -> None:
    raise ValueError  # NaN and Infinity, which are no JSON


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise ValueError(f"the model's answer holds a {type(value).__name__}")


_texts = _many(_text)
_packed = _made(
    Packed,
    role=_one_of(tuple(DTYPES)),
    value=_count,
    dtype=_one_of(tuple({name for names in DTYPES.values() for name in names})),
    shape=_many(_count, 3),
    offset=_count,
)
_box = _made(Box, label=_count, score=_number, low=_many(_number, 3), high=_many(_number, 3))
_likelihood = _made(Likelihood, label=_count, probability=_number, chosen=_truth)
_parcel = _made(Parcel, arrays=_many(_packed), boxes=_many(_box), classes=_many(_likelihood), notes=_texts)
_walls = _made(Walls, had=_texts, lacking=_texts, open=_truth)
MESSAGES: dict[str, tuple[Callable[..., Any], dict[str, Check]]] = {
    "Ready": (Ready, {"device": _device, "seconds": _number, "device_bytes": _count, "gpus": _count, "walls": _walls}),
    "Progressed": (Progressed, {"fraction": _fraction}),
    "Done": (Done, {"parcel": _parcel, "seconds": _number, "device_peak_bytes": _count}),
    "Failed": (Failed, {"kind": _one_of(FAILURES), "reason": _text, "place": _text}),
}
