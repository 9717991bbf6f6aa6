"""overread models: see, add, check, try, profile and remove the models."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from overread.cli.command import Commands, Run, command
from overread.cli.command import settings as read
from overread.domain.errors import CardError, OverreadError

if TYPE_CHECKING:
    from overread.domain.card import Card

Arguments = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True)
class Part:
    """One thing to do with models."""

    name: str
    run: Run
    text: str
    arguments: Arguments = lambda _: None


def add(commands: Commands) -> None:
    models = command(commands, "models", _list, "see, add, check, try, profile and remove the models")
    parts = models.add_subparsers(title="parts", metavar="PART")
    for part in PARTS:
        part.arguments(command(parts, part.name, part.run, part.text))


def _list(options: argparse.Namespace) -> int:
    from overread.checkup import check_model

    cards = list(_cards(options))
    for card in cards:
        line = check_model(card)
        print(f"{'WRONG' if line.wrong else 'ok':<8}  {line.what}: {line.said}")
    if not cards:
        print(f"no model in {', '.join(read(options).models)}")
    return 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a MONAI bundle or brainchop network: folder or ZIP")
    parser.add_argument("--trust", action="store_true", help="you have seen what it would run, and trust it")
    parser.add_argument("--to", type=Path, help="the model folder (default: the first writable one of the settings)")
    parser.add_argument("--name", default="", help="the model's name (default: the bundle's)")


def _add(options: argparse.Namespace) -> int:
    from overread.adopt import shelf
    from overread.infer.brainchop import convert

    home = shelf.shelf_of(read(options).models, options.to)
    with tempfile.TemporaryDirectory(prefix="overread-add-") as scratch:
        staged = shelf.stage(options.path, home, Path(scratch), name=options.name, convert=convert)
        for line in shelf.shown(staged):
            print(line)
        if not options.trust and not _trusted():
            print("overread: nothing was added; say --trust when you trust it", file=sys.stderr)
            return 1
        lacking = shelf.weights_line(staged)
        card = shelf.trust(staged)
    print(f"added: {card.folder}, every file of it recorded in overread.lock")
    print(lacking or f"next: look at {card.folder / 'card.toml'}, then: overread models check {card.name}")
    return 0


def _trusted() -> bool:
    return sys.stdin.isatty() and input("Do you trust it? Type yes: ").strip().lower() == "yes"


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names or folders (default: all)")
    parser.add_argument("--no-run", action="store_true", help="look at the files only, and run nothing")


def _check(options: argparse.Namespace) -> int:
    from overread.adopt.validate import remarks
    from overread.trial import check

    wrong = count = 0
    for name, found in _asked(options):
        count += 1
        if isinstance(found, OverreadError):
            print(f"WRONG     {name}: {found}")
            wrong += 1
            continue
        clean = True
        for remark in remarks(found) if options.no_run else check(found):
            wrong, clean = wrong + remark.wrong, clean and not remark.wrong
            print(f"{'WRONG' if remark.wrong else 'note':<8}  {found.name}: {remark.said}", flush=True)
        if clean:
            print(f"ok        {found.name}: {found.version}, {found.task}, reads {found.accepts.modality}", flush=True)
    if not count:
        print(f"no model in {', '.join(read(options).models)}")
    return 1 if wrong or not count else 0


def _try_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a name, or the model's folder")
    parser.add_argument("folder", type=Path, help="a folder of DICOM files")
    parser.add_argument("--out", type=Path, help="where to write SEG, SR and picture (default: try-MODEL)")


def _try(options: argparse.Namespace) -> int:
    from overread.trial import summary, try_folder

    card = _card(options, options.model)
    out = options.out or Path(f"try-{card.name}")
    trial = try_folder(card, options.folder, out, _bar)
    print(file=sys.stderr)
    print(f"read      {trial.chosen}")
    print(f"found     {summary(trial.findings)}")
    for result in trial.results:
        print(f"wrote     {out / result.path}")
    print(f"wrote     {trial.picture}")
    print(f"in {trial.seconds:.1f} s; nothing was sent anywhere")
    return 0


def _bar(fraction: float) -> None:
    done = int(30 * fraction)
    print(f"\r[{'#' * done}{'.' * (30 - done)}] {100 * fraction:3.0f} %", end="", file=sys.stderr, flush=True)


def _remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _remove(options: argparse.Namespace) -> int:
    from overread.adopt.shelf import remove

    card = _card(options, options.model)
    asked = options.yes or (sys.stdin.isatty() and input(f"Remove {card.folder} for good? Type yes: ").strip() == "yes")
    if not asked:
        print("overread: nothing was removed; say --yes", file=sys.stderr)
        return 1
    remove(card, read(options).models)
    print(f"removed: {card.folder}; jobs that wait for it will say that it is no longer installed")
    return 0


def _cards(options: argparse.Namespace) -> Iterator[Card]:
    """The cards of all models that have a readable one; the others are told on standard error."""
    from overread.domain.card import read_card

    for folder in _folders(options):
        try:
            yield read_card(folder)
        except CardError as error:
            print(f"overread: {error}", file=sys.stderr)


def _folders(options: argparse.Namespace) -> list[Path]:
    return [path.parent for root in read(options).models for path in sorted(Path(root).glob("*/card.toml"))]


def _asked(options: argparse.Namespace) -> Iterator[tuple[str, Card | OverreadError]]:
    """The models that were named, or all: a card, or the reason why it cannot be read."""
    from overread.domain.card import read_card

    for name in options.models or [str(folder) for folder in _folders(options)]:
        try:
            yield name, read_card(Path(name)) if (Path(name) / "card.toml").is_file() else _card(options, name)
        except OverreadError as error:
            yield name, error


def _card(options: argparse.Namespace, name: str) -> Card:
    """A model by its name or its folder; raises CardError when there is none."""
    from overread.domain.card import read_card

    if (Path(name) / "card.toml").is_file():
        return read_card(Path(name))
    for folder in _folders(options):
        if folder.name == name or read_card(folder).name == name:
            return read_card(folder)
    known = ", ".join(folder.name for folder in _folders(options)) or "none"
    raise CardError(f"there is no model {name!r}; installed: {known}")


def _profile_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name of an installed model")
    parser.add_argument("folders", nargs="+", type=Path, help="folders with studies such as it was trained on")
    parser.add_argument(
        "--widen", type=float, default=0.25, help="make each range larger at both ends by so many times its width"
    )


def _profile(options: argparse.Namespace) -> int:
    from overread.cli.profile import run

    return run(options)


PARTS = (
    Part("list", _list, "list the installed models"),
    Part("add", _add, "take in a MONAI bundle or a brainchop network, once you trust it", _add_arguments),
    Part("check", _check, "check cards, codes, labels, digests and licences, and run a tiny volume", _check_arguments),
    Part("try", _try, "read a folder of DICOM files offline, and write SEG, SR and a picture", _try_arguments),
    Part("profile", _profile, "measure what a model was trained on, for the input gate", _profile_arguments),
    Part("remove", _remove, "take a model away for good", _remove_arguments),
)
