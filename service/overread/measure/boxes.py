"""Detections and judgements: boxes with scores, and classes of the whole input."""

from __future__ import annotations

from collections import Counter

from overread.domain.card import Card
from overread.domain.findings import Detection, Judgement
from overread.domain.reading import Reading


def detections(reading: Reading, card: Card) -> tuple[Detection, ...]:
    """The boxes whose label the card names, the most certain first, at most ``most`` of each label; numbered when there
    may be several."""
    labels = {label.value: label for label in card.labels}
    counts: Counter[int] = Counter()
    found = []
    for box in sorted(reading.boxes, key=lambda b: (-b.score, b.label, b.low)):
        label = labels.get(box.label)
        if label is None or box.score < label.least_score or counts[box.label] >= label.most:
            continue
        counts[box.label] += 1
        found.append(Detection(label, f"{label.name} {counts[box.label]}", box.score, box.low, box.high))
    return tuple(found)


def judgements(reading: Reading, card: Card) -> tuple[Judgement, ...]:
    """The classes that the card names, in its order."""
    seen = {likelihood.label: likelihood for likelihood in reading.classes}
    given = [(label, seen[label.value]) for label in card.labels if label.value in seen]
    return tuple(Judgement(label, s.probability, s.chosen) for label, s in given)
