"""One error tree, split by what to do next.

OverreadError
├── Refused                     never retry: what was asked cannot be done; the text says what to change
│   ├── ConfigError             a settings file
│   ├── CardError               a model's card, bundle or weights
│   ├── Unfit                   an input that a model must not read → NOT_APPLICABLE
│   ├── Misplaced               a result that does not land on its pixels → never sent
│   └── Rejected                a destination cannot be used as it is configured, here or there
├── Stumbled                    try again soon: this attempt failed, the next may not
│   └── WorkerLost              the model's process crashed, hung or ran out of memory
├── Canceled                    nobody wants the answer any more
├── Outranked                   the attempt made way for an urgent one; it has not failed
└── Unreachable                 try again with growing patience: the other side is not there, or too busy
    └── NoConnection            and nothing has been said to it
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from overread.domain.death import Death

if TYPE_CHECKING:
    from overread.domain.result import Result


class OverreadError(Exception):
    """Base of all errors that overread raises on purpose. Texts name the thing and the remedy, never a patient."""


class Refused(OverreadError):
    """Asking again gives the same answer."""


class ConfigError(Refused):
    """A settings file is wrong."""


class CardError(Refused):
    """A model folder is wrong: its card, its bundle, or weights whose digest does not match."""


class Unfit(Refused):
    """The input is not what the model was made for; the job ends as NOT_APPLICABLE with this reason.

    ``results`` tell the PACS so, where the site wants it.
    """

    results: Sequence[Result] = ()


class Misplaced(Refused):
    """A result, read back from its encoded bytes, is not what it should be; it is never sent. ``file`` holds it, where
    it was written."""

    def __init__(self, text: str, file: Path | None = None) -> None:
        super().__init__(text)
        self.file = file


class Rejected(Refused):
    """A destination refuses for good what is asked of it: somebody must change a configuration, here or there."""


class Stumbled(OverreadError):
    """This attempt failed; another may succeed."""


class WorkerLost(Stumbled):
    """The worker process of a model died, hung past its limit or ran out of memory: ``kind`` as in ``domain.death``.

    ``death`` is the evidence; None when the process lives, and only this attempt was too much for it.
    """

    def __init__(self, text: str, kind: str = "crash", death: Death | None = None) -> None:
        super().__init__(text)
        self.kind, self.death = kind, death


class Canceled(OverreadError):
    """The job was canceled or superseded, or its lease was lost, while it was worked on."""


class Outranked(OverreadError):
    """The reading was ended to make room for an urgent one; the job is to be read again."""


class Unreachable(OverreadError):
    """The destination is down, busy or out of resources; nothing is wrong with the object."""


class NoConnection(Unreachable):
    """No connection came about: nothing that was to be sent has left."""
