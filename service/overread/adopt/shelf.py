"""The shelf: folders of models in a folder of the settings. Models are put there, trusted, and taken away."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from overread import __version__
from overread.adopt.bundle import Described, describe, weights_of
from overread.adopt.draft import draft, name_of
from overread.adopt.survey import said, survey
from overread.adopt.task import task_of
from overread.adopt.unpack import lay_out
from overread.domain.card import Card, read_card
from overread.domain.errors import CardError
from overread.domain.lock import write_lock

Convert = Callable[[Path, Path], bool]


@dataclass(frozen=True)
class Staged:
    """A model laid out and looked at, not yet trusted. ``home`` is where it would live; ``here`` when it is there."""

    folder: Path
    home: Path
    bundle: Described | None
    here: bool

    @property
    def name(self) -> str:
        """The model's name."""
        return self.home.name


def shelf_of(roots: Sequence[str], to: Path | None) -> Path:
    """The folder for a new model: ``to``, else the first of ``roots`` that can be written; raises CardError."""
    for root in [to] if to is not None else [Path(r) for r in roots]:
        if _writable(root):
            return root
    tried = str(to) if to is not None else ", ".join(roots)
    raise CardError(f"none of the model folders can be written ({tried}); run it as their owner, or name one with --to")


def stage(source: Path, shelf: Path, scratch: Path, *, name: str, convert: Convert) -> Staged:
    """Lay ``source`` out and look at it. A model that lies on the shelf already is looked at where it is.

    ``convert`` may turn what is no bundle into one: (the folder, where to) → whether it did. Raises CardError when the
    source is no model, or one whose name is taken.
    """
    if source.is_dir() and source.resolve().parent == shelf.resolve():
        has_configs = (source / "configs").is_dir()
        return Staged(source, source, describe(source) if has_configs else None, here=True)
    folder = lay_out(source, scratch / _plain(name or source.stem))
    _licence_of_collection(source, folder)
    converted = scratch / f"{_plain(name or folder.name)}-bundle" / _plain(name or folder.name)
    if not (folder / "configs").is_dir() and convert(folder, converted):
        folder = converted
    bundle = describe(folder) if (folder / "configs").is_dir() or not (folder / "card.toml").is_file() else None
    title = name or _card_name(folder) or (name_of(bundle) if bundle else folder.name)
    home = shelf / _plain(title)
    if home.exists():
        raise CardError(f"{home} is there already; overread models remove {home.name} first, or give another --name")
    return Staged(folder, home, bundle, here=False)


def shown(staged: Staged) -> Iterator[str]:
    """What a person should see before trusting the model, in lines. Raises CardError when there is nothing to read."""
    bundle = staged.bundle
    if bundle is None:
        card = read_card(staged.folder)
        yield f"{card.name} {card.version}: {card.title}, run by the engine {card.engine}"
        return
    yield f"{staged.name} {bundle.text('version')}: {bundle.text('task') or bundle.text('name') or 'no task is named'}"
    task = read_card(staged.folder).task if (staged.folder / "card.toml").is_file() else task_of(bundle)
    yield f"it gives: {task}"
    yield f"licence: {licence(staged.folder, bundle)}"
    yield "it is code; run on this machine, with the rights of the service, it can do what these say:"
    yield from (f"  {line}" for line in said(survey(bundle), bundle.config_name))


def trust(staged: Staged) -> Card:
    """Put the model on the shelf, give it a card where it has none, and record every file; returns its card."""
    folder = staged.folder
    path = folder / "card.toml"
    if not path.is_file() and staged.bundle is not None:
        path.write_text(draft(staged.bundle, staged.name), "utf-8")
    _fill_digest(folder)
    write_lock(folder, datetime.now(UTC).isoformat(timespec="seconds"), f"overread {__version__}")
    card = read_card(folder)
    if staged.here:
        return card
    _move(folder, staged.home)
    return read_card(staged.home)


def remove(card: Card, roots: Sequence[str]) -> None:
    """Take a model away for good; raises CardError when it does not lie in a model folder of the settings."""
    if card.folder.parent not in {Path(r).resolve() for r in roots}:
        raise CardError(f"{card.folder} does not lie in a model folder of the settings; remove it yourself")
    try:
        shutil.rmtree(card.folder)
    except OSError as error:
        raise CardError(f"{card.folder} cannot be removed ({error.strerror}); run it as its owner") from None


def licence(folder: Path, bundle: Described | None) -> str:
    """The licence by the model's licence file, else as its metadata names it, else ``none is stated``."""
    named = bundle.text("license") if bundle else ""
    for path in _licences(folder):
        lines = [" ".join(line.split()) for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
        head = " ".join(lines[:6])
        known = next((n for n in ("Apache License", "MIT License", "BSD", "GPL", "Creative Commons") if n in head), "")
        return f"{known or (lines[0][:80] if lines else 'empty')} ({path.relative_to(folder)})"
    return named or "none is stated"


def _licence_of_collection(source: Path, folder: Path) -> None:
    """A model that lies in a collection may have its licence there, beside it."""
    if source.is_dir() and not _licences(folder):
        for path in _licences(source.resolve().parent)[:1]:
            shutil.copyfile(path, folder / path.name)


def _licences(folder: Path) -> list[Path]:
    found = (*folder.glob("*"), *folder.glob("docs/*"))
    return sorted(p for p in found if p.is_file() and re.match(r"(?i)licen[cs]e", p.name))


def _fill_digest(folder: Path) -> None:
    """Write the weights' digest into the card; none while they are not there."""
    path = folder / "card.toml"
    card = read_card(folder)
    weights = folder / card.weights
    if not card.weights or not weights.is_file():
        return
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    text = path.read_text("utf-8")
    line = re.compile(r'(?m)^(weights_sha256\s*=\s*)"[^"]*"')
    path.write_text(line.sub(rf'\1"{digest}"', text, count=1), "utf-8")


def _move(folder: Path, home: Path) -> None:
    """Into place in one step: a service that starts meanwhile sees the whole model or none of it."""
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=home.parent) as near:
        ready = Path(near) / home.name
        shutil.copytree(folder, ready)
        ready.chmod(0o755)
        ready.rename(home)


def _writable(root: Path | None) -> bool:
    if root is None:
        return False
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(root, os.W_OK | os.X_OK)


def _card_name(folder: Path) -> str:
    return read_card(folder).name if (folder / "card.toml").is_file() else ""


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-") or "model"


def weights_line(staged: Staged) -> str | None:
    """What to do when the weights are missing, None when they are there."""
    if staged.bundle is None:
        return None
    wanted = weights_of(staged.bundle)
    if (staged.folder / wanted).is_file():
        return None
    return f"its weights are not in it: copy them to {staged.home / wanted}, then: overread models add {staged.home}"
