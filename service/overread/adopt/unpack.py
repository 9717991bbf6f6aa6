"""A folder or a ZIP from somewhere, laid into a folder of ours; what could reach beyond it is refused."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from overread.domain.errors import CardError

MOST_FILES = 10_000
MOST_BYTES = 20 << 30
MOST_TIMES = 200  # how many times larger than its ZIP a member may be; weights hardly shrink, text some ten times
SMALL = 1 << 20


def lay_out(source: Path, target: Path) -> Path:
    """Copy or unpack ``source`` into ``target``, which must not exist; returns the bundle's own folder in it.

    Raises CardError for what is no folder or ZIP, for paths that leave the target, links, devices, and for more or
    larger files than a model has.
    """
    if source.is_dir():
        _copy(source, target)
    elif zipfile.is_zipfile(source):
        _unzip(source, target)
    elif not source.exists():
        raise CardError(f"{source} is not there")
    else:
        raise CardError(f"{source} is neither a folder nor a ZIP")
    return _root(target)


def _copy(source: Path, target: Path) -> None:
    paths = [p for p in source.rglob("*") if "__pycache__" not in p.parts and ".git" not in p.relative_to(source).parts]
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CardError(f"{path.relative_to(source)} is a link or a device; a model has files only")
    files = [p for p in paths if p.is_file()]
    _require_sane(len(files), (p.stat().st_size for p in files))
    target.mkdir(parents=True)
    for path in files:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _unzip(source: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            members = [m for m in archive.infolist() if not m.is_dir() and "__pycache__" not in m.filename]
            _require_sane(len(members), (m.file_size for m in members))
            for member in members:
                _require_inside(member)
            target.mkdir(parents=True)
            for member in members:
                _extract(archive, member, target)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise CardError(f"{source.name} cannot be unpacked: {error}") from None
    except CardError:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _require_sane(count: int, sizes: Iterable[int]) -> None:
    if count > MOST_FILES:
        raise CardError(f"it has {count} files; a model has at most {MOST_FILES}")
    total = sum(sizes)
    if total > MOST_BYTES:
        raise CardError(f"it would take {total >> 30} GB; a model has at most {MOST_BYTES >> 30}")


def _require_inside(member: zipfile.ZipInfo) -> None:
    name = member.filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise CardError(f"the ZIP's {name!r} would be written outside its folder; it is refused")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise CardError(f"the ZIP's {name!r} is a link or a device; a model has files only")
    if member.flag_bits & 1:
        raise CardError(f"the ZIP's {name!r} is encrypted; unpack it yourself and add the folder")
    if member.file_size > SMALL and member.file_size > MOST_TIMES * max(1, member.compress_size):
        raise CardError(f"the ZIP's {name!r} grows {member.file_size // max(1, member.compress_size)} times; refused")


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member, and no more of it than its header says."""
    place = target / PurePosixPath(member.filename)
    place.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with archive.open(member) as packed, place.open("xb") as file:
        while chunk := packed.read(SMALL):
            left -= len(chunk)
            if left < 0:
                raise CardError(f"the ZIP's {member.filename!r} is larger than it says; refused")
            file.write(chunk)


def _root(target: Path) -> Path:
    """The folder with ``configs``, also when the archive holds it one or two folders down."""
    for depth in ("", "*/", "*/*/"):
        found = sorted(p.parent for p in target.glob(f"{depth}configs") if p.is_dir())
        if len(found) == 1:
            return found[0]
        if found:
            raise CardError(f"there are several bundles in it: {', '.join(p.name for p in found)}; add them one by one")
    return target
