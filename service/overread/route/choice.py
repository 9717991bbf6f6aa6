"""Which of several series, or of the volumes in them, a model reads; and which is which of its inputs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from overread.domain.candidates import FrameReader, Headers, Words
from overread.domain.card import Card, Input
from overread.domain.errors import Unfit
from overread.domain.study import Series, Study
from overread.route.rules import Verdict, judge_all


@dataclass(frozen=True)
class Choice:
    """What was found for one input. ``best`` is the one to read, None when there is none; an unfit one is the answer
    where nothing fits."""

    row: Input
    verdicts: tuple[Verdict, ...]
    best: Verdict | None


def choose(study: Study, card: Card, reader: FrameReader | None = None) -> list[Choice]:
    """Find each input of ``card`` among the series of a study; one that is taken is not given to another input.

    A card without inputs has one, without conditions of its own.
    """
    taken: set[str] = set()
    choices = []
    for row in card.inputs or (Input(""),):
        wanted = replace(card, accepts=replace(card.accepts, modality=row.modality or card.accepts.modality))
        verdicts = [v for s in study.series if s.uid not in taken for v in _judged(s, wanted, row, reader or Headers())]
        best = best_of(verdicts, card)
        choices.append(Choice(row, tuple(verdicts), best))
        if best is not None:
            taken.add(best.series.uid)
    return choices


def input_digest(choices: Sequence[Choice]) -> str:
    """What names the input of a job: all of it. Every input must have been found."""
    digests = [_digest(choice) for choice in choices]
    if len(digests) == 1:
        return digests[0]
    lines = "".join(f"{c.row.name} {digest}\n" for c, digest in zip(choices, digests, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _digest(choice: Choice) -> str:
    assert choice.best is not None
    return choice.best.stack.digest() if choice.best.stack else choice.best.unfit


def best_of(verdicts: Sequence[Verdict], card: Card) -> Verdict | None:
    """The preferred one of those that fit; else the largest of those that are of the right kind, but unfit."""
    fitting = sorted((v for v in verdicts if v.stack), key=lambda v: _preference(v, card))
    unfit = sorted((v for v in verdicts if v.unfit), key=lambda v: (-len(v.series.instances), v.series.uid))
    return next(iter([*fitting, *unfit]), None)


def _preference(verdict: Verdict, card: Card) -> tuple[float, float, bool, int, str]:
    assert verdict.stack is not None
    spacing, slices = verdict.stack.spacing_mm[0], len(verdict.stack.instances)
    derived = verdict.series.first.image_type[:1] == ("DERIVED",)
    first, second = (round(spacing, 2), -slices) if card.accepts.prefer == "thinnest" else (-slices, round(spacing, 2))
    return first, second, derived, verdict.series.first.series_number or 0, verdict.series.uid


def _judged(series: Series, card: Card, row: Input, reader: FrameReader) -> Iterator[Verdict]:
    verdicts = judge_all(series, card, reader)
    reason = _mismatch(series, row, reader) if any(v.stack or v.unfit for v in verdicts) else ""
    yield from [Verdict(series, reason)] if reason else verdicts


def _mismatch(series: Series, row: Input, reader: FrameReader) -> str:
    """Why a series is not this input; empty when it is."""
    if not (row.description or row.sequence or row.without) and row.contrast == "any":
        return ""
    try:
        return next(_mismatches(reader.words(series.first), row), "")
    except Unfit as error:
        return str(error)


def _mismatches(words: Words, row: Input) -> Iterator[str]:
    if row.description and not _found(row.description, words.description):
        yield f"its description does not match {row.description!r}"
    if row.sequence and not _found(row.sequence, words.sequence):
        yield f"its sequence does not match {row.sequence!r}"
    if row.without and _found(row.without, f"{words.description} {words.sequence}"):
        yield f"its description matches {row.without!r}"
    if row.contrast != "any" and words.contrast != (row.contrast == "with"):
        yield f"it is {'with' if words.contrast else 'without'} contrast"


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None
