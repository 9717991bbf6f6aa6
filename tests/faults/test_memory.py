"""Memory grows with the number of senders, never with the size of what they send."""

from __future__ import annotations

import os
import random
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import Service
from material import element, header, make, meta_value, new_uid, stored_files
from vitals import MB, forget_peak, peak_rss
from wire import EXPLICIT, WORD_FRAMES, Wire, associated

pytestmark = pytest.mark.alone

HUGE_MB, FRAME_MB = 2048, 2
SENDERS, EACH_MB = 40, 4
BASE, EACH_ASSOCIATION = 64 * MB, 2 * MB
Make = Callable[..., Service]


def huge(uid: str, study: str, size_mb: int) -> Iterator[bytes]:
    """A data set of so many MB in frames of 2 MB, a frame at a time; no two frames are alike."""
    frames, pixels = size_mb // FRAME_MB, random.Random(2).randbytes(FRAME_MB * MB - 4)
    yield header(uid, study, f"{study}.1", 1024, FRAME_MB * MB // 2048, frames=frames)
    length = (frames * FRAME_MB * MB).to_bytes(4, "little")
    yield element(0x7FE00010, "OW", b"")[:8] + length
    for number in range(frames):
        yield number.to_bytes(4, "little") + pixels


class Checksum:
    """Counts and sums up what passes."""

    def __init__(self) -> None:
        self.bytes = self.crc = 0

    def through(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.bytes += len(chunk)
            self.crc = zlib.crc32(chunk, self.crc)
            yield chunk


def checksum_of(path: Path) -> tuple[int, int]:
    """Of the data set in a Part 10 file, read piece by piece."""
    check = Checksum()
    with path.open("rb") as file:
        file.seek(144 + int.from_bytes(file.read(144)[140:], "little"))
        for _ in check.through(iter(lambda: file.read(MB), b"")):
            continue
    return check.bytes, check.crc


def require_light(house: Service, before: int, senders: int, capsys: pytest.CaptureFixture[str]) -> None:
    rise, allowed = peak_rss(house.pid) - before, BASE + senders * EACH_ASSOCIATION
    told = f"{senders} senders: {before / MB:.0f} MB before, {rise / MB:.1f} MB more of {allowed / MB:.0f} allowed"
    with capsys.disabled():
        print("\n" + told)
    assert rise <= allowed, told


@pytest.fixture
def listener(service: Make) -> Service:
    """A listener that has taken an image before, so that what it loads once is loaded."""
    row = {"ae_title": "*", "network": "127.0.0.0/8", "max_associations": SENDERS}
    house = service(role="listen", receive={"allow": [row]}).start()
    made = make(random.Random(1), EACH_MB * MB)
    with associated(house.port) as wire:
        assert wire.store(made.uid, made.data) == 0x0000
    return house


@pytest.mark.slow
def test_two_gigabytes_in_one_object_pass_through_little_memory(
    listener: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kept byte for byte, and never whole in memory."""
    size_mb = int(os.environ.get("OVERREAD_HUGE_MB", HUGE_MB))
    if shutil.disk_usage(tmp_path).free < (size_mb + 200) * MB:
        pytest.skip(f"less than {size_mb + 200} MB free in {tmp_path}")
    rng, check = random.Random(2), Checksum()
    uid, study = new_uid(rng), new_uid(rng)
    before = forget_peak(listener.pid)
    with associated(listener.port, [(WORD_FRAMES, EXPLICIT)], timeout_s=120) as wire:
        sent = check.through(huge(uid, study, size_mb))
        assert wire.store(uid, sent, (WORD_FRAMES, EXPLICIT)) == 0x0000
    (path,) = [p for p in stored_files(listener.data / "spool") if p.stat().st_size > size_mb * MB]
    try:
        with path.open("rb") as file:
            assert meta_value(file.read(1024), 0x0003) == uid
        assert checksum_of(path) == (check.bytes, check.crc)
    finally:
        path.unlink()
    require_light(listener, before, 1, capsys)


@pytest.mark.slow
def test_forty_senders_at_once_need_little_memory_each(listener: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as may associate, each pushing objects of 4 MB."""
    before, statuses = forget_peak(listener.pid), list[int]()
    together = threading.Barrier(SENDERS, timeout=60)
    made = [make(random.Random(seed), EACH_MB * MB) for seed in range(SENDERS)]

    def push(number: int) -> None:
        with Wire(listener.port, 120) as wire:
            wire.associate()
            together.wait()
            statuses.append(wire.store(made[number].uid, made[number].data))
            wire.release()

    threads = [threading.Thread(target=push, args=(n,)) for n in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert statuses == [0x0000] * SENDERS
    require_light(listener, before, SENDERS, capsys)
