"""File systems of the test's own: a small tmpfs that can be filled, an ext4 image that can lose its power."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from material import tool

MB = 1 << 20


def mount(*arguments: str | Path) -> None:
    """Call mount(8); the test is skipped, with what it said, where that is not allowed."""
    done = subprocess.run([tool("mount"), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    """Call umount(8), at the latest when the last process has let go."""
    subprocess.run([tool("umount"), "--lazy", str(folder)], check=True)


class SmallDisk:
    """A tmpfs of a few MB, and a file on it that takes their place and gives it back."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        mount("-t", "tmpfs", "-o", f"size={size_mb}m", "overread-test", folder)

    def fill(self, leave_mb: int) -> None:
        """Put a file there that leaves so much."""
        free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - leave_mb * MB)

    def relieve(self) -> None:
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[SmallDisk]:
    """``folder`` is a tmpfs while the block lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = SmallDisk(folder, size_mb)
    try:
        yield disk
    finally:
        unmount(folder)


@contextmanager
def image_mounted(image: Path, folder: Path, *options: str) -> Iterator[Path]:
    """``folder`` is the file system in ``image`` while the block lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("-o", ",".join(("loop", *options)), image, folder)
    try:
        yield folder
    finally:
        unmount(folder)


def ext4_image(image: Path, size_mb: int) -> Path:
    """An empty ext4 file system in a sparse file."""
    with image.open("wb") as file:
        file.truncate(size_mb * MB)
    options = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    subprocess.run([tool("mkfs.ext4"), *options, str(image)], check=True)
    return image


def in_a_namespace(request: pytest.FixtureRequest) -> bool:
    """Without root: run the same test again as root of a user and mount namespace of its own, and say True.

    Skips where users may not make namespaces.
    """
    if os.geteuid() == 0:
        return False
    unshare = [tool("unshare"), "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("not root, and users may not make namespaces here")
    again = [sys.executable, "-m", "pytest", request.node.nodeid, "-p", "no:cacheprovider", "-rs"]
    done = subprocess.run(
        [*unshare, *again], cwd=request.config.rootpath, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout
    if " skipped" in done.stdout:
        pytest.skip(done.stdout.strip().splitlines()[-2])
    return True
