"""``overread models profile``: what a model was trained on, in ranges that the input gate compares with."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from overread import wiring
from overread.cli.command import settings
from overread.domain.card import Card
from overread.domain.errors import CardError, ConfigError, Refused
from overread.domain.study import Instance, group
from overread.domain.volume import Volume
from overread.load.profile import profile_of, write_profile
from overread.load.series import load_files
from overread.route.choice import choose
from overread.spool.frames import SpoolFrames
from overread.spool.header import read_file


def run(options: argparse.Namespace) -> int:
    """Measure every series below the folders that the model accepts, and write ``profile.json`` beside its card."""
    card = _card(options)
    profile = profile_of(_volumes(card, options.folders), widen=options.widen)
    path = write_profile(profile, card.folder)
    for name, (low, high) in profile.ranges.items():
        print(f"  {name:<45} {low:10.4g} … {high:.4g}")
    print(f"{path}: {profile.studies} studies")
    if profile.studies < 20:
        print("These are few: a profile of fewer than 20 studies refuses what it should not. Add more, or --widen it.")
    return 0


def _card(options: argparse.Namespace) -> Card:
    cards = {card.name: card for card in wiring.cards(settings(options))}
    if options.model not in cards:
        known = ", ".join(sorted(cards)) or "none"
        raise ConfigError(f"no model is named {options.model!r}; installed: {known}")
    return cards[options.model]


def _volumes(card: Card, folders: list[Path]) -> Iterator[Volume]:
    """The volumes that the model would read, one for each study, loaded one after another."""
    studies: dict[str, list[Instance]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CardError(f"{folder} is no folder")
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            with suppress(Refused):
                instance = replace(read_file(path), path=str(path.resolve()))
                studies.setdefault(instance.study_uid, []).append(instance)
    reader = SpoolFrames(Path)
    for uid, instances in studies.items():
        best = choose(group(uid, 1, instances), card, reader)[0].best
        if best is not None and best.stack is not None:
            yield load_files(best.stack)
