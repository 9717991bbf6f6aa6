"""The lock of a model's folder: which files somebody has trusted, by their digests.

A bundle's config and scripts are code. Adding a model is an act of trust in exactly the files that were there, so each
of them is recorded in ``overread.lock``, and a folder in which one is other, gone or new is not run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from overread.domain.errors import CardError

LOCK = "overread.lock"
# What overread and its administrator write beside the model; none of it is run.
OURS = frozenset({LOCK, "card.toml", "profile.json"})


@dataclass(frozen=True)
class Lock:
    """``files``: path → SHA-256; ``trusted_at`` ISO 8601 in UTC; ``by`` the version of overread that recorded it."""

    files: dict[str, str]
    trusted_at: str
    by: str


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a model's folder but ours; raises CardError for a link, which could lead anywhere."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_symlink():
            raise CardError(f"{name} in {folder.name} is a link; put the file itself there")
        # Bytecode is never read from a model's folder, see infer.surroundings.
        if path.is_file() and name.as_posix() not in OURS and "__pycache__" not in name.parts:
            with path.open("rb") as file:
                found[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def write_lock(folder: Path, trusted_at: str, by: str) -> Lock:
    """Record the files as they are now."""
    lock = Lock(digests(folder), trusted_at, by)
    (folder / LOCK).write_text(json.dumps(vars(lock), indent=1, sort_keys=True) + "\n", "utf-8")
    return lock


def read_lock(folder: Path) -> Lock | None:
    """The lock of a folder, None when it has none; raises CardError when it cannot be read."""
    try:
        values = json.loads((folder / LOCK).read_text("utf-8"))
        return Lock(dict(values["files"]), str(values["trusted_at"]), str(values["by"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CardError(f"{folder / LOCK} cannot be read ({type(error).__name__}); {_remedy(folder)}") from None


def changes(folder: Path) -> list[str]:
    """What differs from the lock, one clause each; raises CardError when there is no lock."""
    lock = read_lock(folder)
    if lock is None:
        raise CardError(f"nobody has said that {folder.name} may run code here (it has no {LOCK}); {_remedy(folder)}")
    now = digests(folder)
    told = [f"{name} has changed" for name in lock.files if name in now and now[name] != lock.files[name]]
    told += [f"{name} is gone" for name in lock.files if name not in now]
    return told + [f"{name} is new" for name in now if name not in lock.files]


def require_trusted(folder: Path) -> None:
    """Raise CardError, naming the files, unless the folder is exactly what was trusted."""
    told = changes(folder)
    if told:
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        raise CardError(f"{folder.name} is not what was trusted: {', '.join(told[:3])}{more}; {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    return f"put the right files back, or look at it and trust it again with: overread models add {folder}"
