"""Is a model right, as far as its files tell? One remark for each fault, with the remedy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from overread.adopt import codes
from overread.adopt.bundle import Described, describe
from overread.adopt.draft import inputs_of, labels_of
from overread.adopt.shelf import licence
from overread.adopt.task import BACKGROUND, task_of
from overread.domain.card import Card, Label
from overread.domain.codes import Code
from overread.domain.errors import CardError
from overread.domain.lock import LOCK, changes, read_lock

SHA256 = 64


@dataclass(frozen=True)
class Remark:
    """One thing about a model; ``wrong`` when it cannot be used like this."""

    said: str
    wrong: bool = False


def remarks(card: Card) -> Iterator[Remark]:
    """Everything worth saying about a model; nothing of it is run."""
    yield from faults(card)
    for label in card.labels:
        yield from _codes(label)
    if card.engine != "monai-bundle":
        return
    try:
        bundle = describe(card.folder)
    except CardError as error:
        yield Remark(str(error), wrong=True)
        return
    yield from _channels(card, bundle)
    yield from _task(card, bundle)
    stated = licence(card.folder, bundle)
    if stated == "none is stated":
        yield Remark("no licence is stated, neither in its metadata nor in a LICENSE file: may you use it?")


def faults(card: Card) -> Iterator[Remark]:
    """Only what keeps it from running: weights and trust."""
    for name, sha256 in card.all_weights.items():
        yield from _weights(card, name, sha256)
    if card.engine == "monai-bundle" or (card.folder / LOCK).is_file():
        yield from _trust(card)


def _weights(card: Card, name: str, sha256: str) -> Iterator[Remark]:
    path = card.folder / name
    if not path.is_file():
        remedy = f"copy the file there, then: overread models add {card.folder}"
        yield Remark(f"its weights {path} are not there; {remedy}", wrong=True)
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if len(sha256) != SHA256:
        yield Remark(f"weights_sha256 in its card is no SHA-256; that of {name} is {found}", wrong=True)
    elif found != sha256:
        remedy = "put the right file back, or correct weights_sha256 in card.toml if the change was meant"
        yield Remark(f"the weights' SHA-256 is {found}, not the card's; {remedy}", wrong=True)


def _trust(card: Card) -> Iterator[Remark]:
    again = f"look at it, then: overread models add {card.folder}"
    try:
        if read_lock(card.folder) is None:
            yield Remark(f"nobody has said that its code may run here (it has no {LOCK}); {again}", wrong=True)
            return
        for told in changes(card.folder):
            yield Remark(f"{told} since it was trusted; put the right file back, or {again}", wrong=True)
    except CardError as error:
        yield Remark(str(error), wrong=True)


def _codes(label: Label) -> Iterator[Remark]:
    where = f"label {label.value} ({label.name})"
    for key in ("type", "category", "modifier", "region", "region_modifier"):
        code: Code | None = getattr(label, key)
        if code is None:
            continue
        written = f"{where}: {key} {code.value} {code.scheme} {code.meaning!r}"
        fault = codes.fault(code)
        if fault is not None:
            unknown = fault.startswith("is not in")
            yield Remark(f"{written} {fault}{'; look it up' if unknown else ' in the dictionary'}", wrong=not unknown)
        elif code.scheme == codes.PRIVATE:
            yield Remark(f"{written} is a code of our own; find the right one, so that the PACS understands it")
    if (label.category.scheme, label.category.value) not in codes.members(codes.CATEGORY_CID):
        yield Remark(f"{where}: category {label.category.meaning!r} is none of CID 7150 (PS3.16)", wrong=True)


def _channels(card: Card, bundle: Described) -> Iterator[Remark]:
    """The card's labels against the bundle's own names of its channels."""
    if card.task == "image" or not bundle.channels:
        return
    drafted = {label.value: label for label in labels_of(bundle, card.task)}
    mine = {label.value: label for label in card.labels}
    for value, label in sorted(mine.items()):
        if value not in drafted:
            named = ", ".join(str(v) for v in sorted(drafted)[:20])
            yield Remark(f"label {value} ({label.name}): channel_def has no such value; it has {named}", wrong=True)
        elif drafted[value].codes.known and _differ(label, drafted[value].codes):
            said = drafted[value].name
            here = f"{label.name!r} ({label.type.meaning})"
            yield Remark(f"label {value} is {here} in the card, {said!r} in channel_def", wrong=True)
    for value in sorted(set(drafted) - set(mine) - set(card.ignored)):
        said = f"value {value} ({drafted[value].name}) of channel_def has no label in the card"
        yield Remark(f"{said}: add one, or put {value} into `ignored`; answers that hold it are refused", wrong=True)
    first = bundle.channels.get(0, "")
    if first and first.strip().lower() not in BACKGROUND and len(bundle.channels) > 1 and card.task == "segmentation":
        yield Remark("channel_def has no background: its channels may overlap (sigmoid)")


def _differ(label: Label, other: codes.Coded) -> bool:
    """Whether a label is of another thing, or of the other side, than its channel's name says."""
    sides = {label.modifier.value, other.modifier.value} if label.modifier and other.modifier else set()
    same_kind = label.type.value == other.type.value or label.type.meaning.lower() in label.name.lower()
    opposite = sides == {codes.LEFT.value, codes.RIGHT.value}
    return opposite or (codes.look_up(label.name).type.value != other.type.value and not same_kind)


def _task(card: Card, bundle: Described) -> Iterator[Remark]:
    try:
        task = task_of(bundle)
    except CardError as error:
        yield Remark(f"by its metadata {error}")
        return
    if task != card.task:
        yield Remark(f"its card says {card.task}, its metadata looks like {task}; the card counts")
    wanted = inputs_of(bundle)
    if len(wanted) > 1 and len(card.inputs) != len(wanted):
        named = ", ".join(wanted)
        yield Remark(f"it reads {len(wanted)} series ({named}); its card needs [[inputs]] for each", wrong=True)
