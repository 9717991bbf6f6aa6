"""A scanner that sends: C-STORE with the files' own bytes, and the patience that real scanners have."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pynetdicom.dsutils import split_dataset

from overread.deliver.association import Line, association
from overread.deliver.storing import Part, store
from overread.domain.errors import Rejected, Unreachable
from overread.domain.peer import Peer

Progress = Callable[[int, int], None]

_MOST_CONTEXTS = 128


@dataclass(frozen=True)
class Patience:
    """How often a scanner tries and how long it waits: ``first_wait_s``, doubled each time."""

    tries: int = 5
    first_wait_s: float = 0.5
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Failed:
    """A file that was not taken: the last C-STORE status (None without an answer) and the reason in words."""

    path: Path
    status: int | None
    reason: str


@dataclass(frozen=True)
class Sent:
    """What became of the files: ``stored`` (``warned`` of them with a warning), ``failed``; ``retried`` counts tries
    beyond the first, over all files; ``seconds`` is wall time with the waits."""

    stored: int
    warned: int
    failed: tuple[Failed, ...]
    retried: int
    seconds: float


@dataclass(frozen=True)
class _Image:
    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str

    @property
    def context(self) -> tuple[str, str]:
        return self.sop_class_uid, self.transfer_syntax_uid


@dataclass
class _Round:
    """One pass over the files that are left; ``again`` may pass next time, ``failed`` never."""

    stored: int = 0
    warned: int = 0
    connected: bool = False
    again: list[tuple[_Image, Failed]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    def add(self, later: _Round) -> None:
        """Count a later round too; only what it leaves over is left over."""
        self.stored += later.stored
        self.warned += later.warned
        self.connected |= later.connected
        self.failed += later.failed
        self.again = later.again


def send(
    paths: Sequence[Path],
    peer: Peer,
    *,
    calling_ae: str = "SCANNER",
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Sent:
    """Send Part 10 files in the order given; folders are taken with every ``.dcm`` file in them.

    Tries again, with growing waits, what was refused for want of resources (0xA7xx) or did not reach the peer: no
    connection, association refused, broken off or no answer. ``progress`` is told (files done, files in all).
    Raises Unreachable when not one association could be opened, FileNotFoundError or InvalidDicomError for what is no
    Part 10 file.
    """
    started = time.monotonic()
    patience = patience or Patience()
    done, retried = _Round(), 0
    images = [image for p in _files(paths) if (image := _image(p, done))]
    left = images
    for attempt in range(patience.tries):
        if attempt:
            time.sleep(patience.first_wait_s * 2.0 ** (attempt - 1))
            retried += len(left)
        this = _round(left, peer, calling_ae, patience.timeout_s, _counter(progress, done, len(images)))
        done.add(this)
        left = [image for image, _ in this.again]
        if not left:
            break
    if images and not done.connected:
        raise Unreachable(done.again[0][1].reason)
    failed = (*done.failed, *(why for _, why in done.again))
    return Sent(done.stored, done.warned, failed, retried, time.monotonic() - started)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*.dcm") if p.is_file())
        else:
            yield path


def _image(path: Path, done: _Round) -> _Image | None:
    meta = read_file_meta_info(path)
    try:
        return _Image(path, str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
    except AttributeError:
        done.failed.append(Failed(path, None, "its file meta information lacks the SOP Class or the transfer syntax"))
        return None


def _instance(image: _Image) -> str:
    """The SOP Instance UID to send the image under: that of its data set, which some anonymisers change alone."""
    try:
        header = dcmread(image.path, specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
        return str(header.get("SOPInstanceUID") or header.file_meta.MediaStorageSOPInstanceUID)
    except Exception:
        # The edge to files of all kinds: one that cannot be read is sent as it lies, for the receiver to judge.
        return str(read_file_meta_info(image.path).get("MediaStorageSOPInstanceUID", ""))


def _counter(progress: Progress | None, done: _Round, total: int) -> Callable[[_Round], None]:
    before = done.stored + len(done.failed)

    def tell(now: _Round) -> None:
        if progress is not None:
            progress(before + now.stored + len(now.failed), total)

    return tell


def _batches(images: Sequence[_Image]) -> Iterator[list[_Image]]:
    """Runs of images that one association's 128 presentation contexts are enough for, in the order given."""
    batch: list[_Image] = []
    contexts: set[tuple[str, str]] = set()
    for image in images:
        if image.context not in contexts and len(contexts) == _MOST_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(image)
        contexts.add(image.context)
    if batch:
        yield batch


def _round(
    images: Sequence[_Image], peer: Peer, calling_ae: str, timeout_s: float, tell: Callable[[_Round], None]
) -> _Round:
    this = _Round()
    for batch in _batches(images):
        contexts, left = list(dict.fromkeys(image.context for image in batch)), list(batch)
        try:
            with association(peer, calling_ae, contexts, timeout_s=timeout_s) as line:
                this.connected = True
                while left:
                    _store(line, left[0], this)
                    del left[0]
                    tell(this)
        except Unreachable as error:
            this.again += [(image, Failed(image.path, None, str(error))) for image in left]
        except Rejected as error:
            this.connected = True
            this.failed += [Failed(image.path, None, str(error)) for image in left]
    return this


def _store(line: Line, image: _Image, this: _Round) -> None:
    """Send one image over ``line`` and file the answer in ``this``. Raises Unreachable when none comes."""
    if image.context not in line.accepted:
        this.failed.append(Failed(image.path, None, "presentation context not accepted"))
        return
    start, size = split_dataset(image.path)[1], image.path.stat().st_size
    with image.path.open("rb") as file:
        file.seek(start)
        part = Part(image.sop_class_uid, _instance(image), line.accepted[image.context])
        status = store(line, part, file, size - start).status or 0
    if status == 0x0000 or status >> 12 == 0xB:
        this.stored, this.warned = this.stored + 1, this.warned + (status != 0)
    elif status >> 8 == 0xA7:
        this.again.append((image, Failed(image.path, status, "out of resources")))
    else:
        this.failed.append(Failed(image.path, status, f"status 0x{status:04X}"))
