"""A file system that fails at one call: wrappers around ``os`` and ``open``, for the paths of a spool."""

from __future__ import annotations

import builtins
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BY_DESCRIPTOR = ("write", "writev", "pwrite", "pwritev", "fsync", "fdatasync", "posix_fallocate", "ftruncate")
BY_PATH = ("open", "mkdir", "rename", "replace", "link", "unlink", "remove")
MOVES = ("rename", "replace", "link")
SYNCS = ("fsync", "fdatasync")


@dataclass
class Touch:
    """One call that reached the spool; ``target`` is where a rename went, ``injected`` that it was made to fail."""

    name: str
    path: Path
    target: Path | None = None
    injected: bool = False
    worked: bool = False


class Frailty:
    """Lets the calls of other threads through to the spool, counts them, and fails those it was told to fail.

    The thread that made it is the test: its calls pass unseen.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.touches: list[Touch] = []
        self._test = threading.current_thread()
        self._lock = threading.Lock()
        self._first = self._last = 0
        self._error = 0

    def arm(self, first: int, error: int, *, lasting: bool = False) -> None:
        """From now on the ``first``-th call (1 is the next one) fails with ``error``, and all later ones if lasting."""
        with self._lock:
            self.touches = []
            self._first, self._last, self._error = first, 1 << 30 if lasting else first, error

    def disarm(self) -> None:
        """All is well again; calls are still counted."""
        with self._lock:
            self._first = self._last = 0

    @property
    def failures(self) -> list[Touch]:
        """The calls that were made to fail."""
        return [t for t in self.touches if t.injected]

    def watch(self) -> None:
        """Forget what was counted and fail nothing."""
        self.arm(0, 0)
        self.disarm()

    @contextmanager
    def touched(self, name: str, path: Path, target: Path | None = None) -> Iterator[None]:
        """Note a call that is made in this block; raises OSError instead when it is one that fails."""
        with self._lock:
            touch = Touch(name, path, target, self._first <= len(self.touches) + 1 <= self._last)
            self.touches.append(touch)
        if touch.injected:
            raise OSError(self._error, os.strerror(self._error), str(path))
        yield
        touch.worked = True

    def concerns(self, path: Path) -> bool:
        return threading.current_thread() is not self._test and path.is_relative_to(self.root)


def path_of(descriptor: int) -> Path:
    """What a descriptor points to; the root when nobody knows."""
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        return Path("/")


def absolute(path: Any, folder: int | None) -> Path:
    """A path argument of ``os``, which may be relative to a folder's descriptor."""
    if isinstance(path, int):
        return path_of(path)
    return (path_of(folder) if folder is not None else Path.cwd()) / os.fsdecode(path)


@dataclass
class FrailFile:
    """A file whose writes may fail; for all else the real one."""

    file: Any
    frailty: Frailty
    path: Path

    def write(self, data: Any) -> Any:
        with self.frailty.touched("write", self.path):
            return self.file.write(data)

    def flush(self) -> None:
        with self.frailty.touched("flush", self.path):
            self.file.flush()

    def __enter__(self) -> FrailFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@contextmanager
def frail(root: Path) -> Iterator[Frailty]:
    """All calls that change what is below ``root`` go through a ``Frailty`` while the block lasts."""
    frailty = Frailty(root)
    with pytest.MonkeyPatch.context() as patch:
        for name in BY_DESCRIPTOR:
            patch.setattr(os, name, _by_descriptor(frailty, name, getattr(os, name)))
        for name in BY_PATH:
            patch.setattr(os, name, _by_path(frailty, name, getattr(os, name)))
        opening = _opening(frailty, io.open)
        patch.setattr(io, "open", opening)
        patch.setattr(builtins, "open", opening)
        yield frailty


def _by_descriptor(frailty: Frailty, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(descriptor: Any, *arguments: Any, **named: Any) -> Any:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = path_of(number)
        if not frailty.concerns(path):
            return real(descriptor, *arguments, **named)
        with frailty.touched(name, path):
            return real(descriptor, *arguments, **named)

    return call


def _by_path(frailty: Frailty, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any, *arguments: Any, **named: Any) -> Any:
        where = absolute(path, named.get("dir_fd", named.get("src_dir_fd")))
        if not frailty.concerns(where):
            return real(path, *arguments, **named)
        target = absolute(arguments[0], named.get("dst_dir_fd")) if name in MOVES else None
        with frailty.touched(name, where, target):
            return real(path, *arguments, **named)

    return call


def _opening(frailty: Frailty, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        path = absolute(file, None)
        if not frailty.concerns(path):
            return real(file, mode, *arguments, **named)
        with frailty.touched("open", path):
            opened = real(file, mode, *arguments, **named)
        return FrailFile(opened, frailty, path) if set(mode) & set("wxa+") else opened

    return call
