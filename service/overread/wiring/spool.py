"""The spool and what lies beside it in the data folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from overread.settings import Settings

if TYPE_CHECKING:
    from overread.spool import Spool
    from overread.spool.answers import AnswerBox
    from overread.spool.quarantine import Quarantine

MB = 1 << 20


def spool(settings: Settings) -> Spool:
    """The spool in the data folder."""
    from overread.spool import Spool

    return Spool(settings.data_path / "spool", durable=settings.receive.durability != "none")


def quarantine(settings: Settings) -> Quarantine:
    """What could not be read, in the spool."""
    from overread.spool.quarantine import Quarantine

    return Quarantine(settings.data_path / "spool" / "quarantine", durable=settings.receive.durability != "none")


def answer_box(settings: Settings) -> AnswerBox:
    """Answers to storage commitment that have come and were not read yet, in the spool."""
    from overread.spool.answers import AnswerBox

    return AnswerBox(settings.data_path / "spool" / "commitment-answers")


def room_left(settings: Settings, store: Spool) -> Callable[[], bool]:
    """Whether the spool's disk has more free than the settings ask for; asked at most once a second."""
    least, last = settings.receive.min_free_mb * MB, [0.0, True]

    def enough() -> bool:
        now = time.monotonic()
        if now - last[0] > 1.0:
            last[:] = [now, store.free_bytes() > least]
        return bool(last[1])

    return enough


def disk_check(settings: Settings, store: Spool) -> Callable[[], str | None]:
    """A readiness check: is there room in the spool?"""

    def check() -> str | None:
        free, least = store.free_bytes() // MB, settings.receive.min_free_mb
        return None if free > least else f"{free} MB free where the spool lies, {least} MB are wanted"

    return check
