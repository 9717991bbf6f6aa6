"""All series of a study against all models: at most one series a model, and a sentence for each pair."""

from __future__ import annotations

from collections.abc import Sequence

from overread.domain.candidates import FrameReader
from overread.domain.card import Card
from overread.domain.events import JobMoved, StudyRouted
from overread.domain.study import Series, Study
from overread.ledger import Ledger, arrivals, jobs
from overread.ledger.jobs import Decision, Plan
from overread.ports import Herald
from overread.route.rules import Verdict, judge_all


def route_complete_studies(
    ledger: Ledger, cards: Sequence[Card], herald: Herald, reader: FrameReader | None = None
) -> int:
    """Give every complete study that has not met the models yet to them; returns how many.

    ``reader`` knows the frames of multi-frame instances; without one they are declined.
    """
    studies = arrivals.unrouted(ledger)
    for study in studies:
        decisions, plans = route(study, cards, reader)
        moves = jobs.plan(ledger, study.uid, study.revision, decisions, plans)
        if moves is None:
            continue
        herald(StudyRouted(study.uid, len(plans), len(cards) - len(plans)))
        for m in moves:
            herald(JobMoved(m.job.id, m.job.model, study.uid, m.before, m.after, "superseded by a later revision"))
    return len(studies)


def route(
    study: Study, cards: Sequence[Card], reader: FrameReader | None = None
) -> tuple[list[Decision], list[Plan]]:
    """Decide which model reads which series of a study, and why.

    When none can be read but one is of the model's kind, that one is planned all the same: the job will end as not
    applicable with the reason, which is an answer, and not as silence.
    """
    decisions: list[Decision] = []
    plans: list[Plan] = []
    for card in cards:
        verdicts = [v for series in study.series for v in judge_all(series, card, reader)]
        best = _best(verdicts, card)
        decisions += [_decision(card, v, best) for v in verdicts]
        if best is None:
            decisions.append(Decision(card.name, "", "", False, "no series of the study suits the model"))
            continue
        digest = best.stack.digest() if best.stack else best.unfit
        plans.append(Plan(card.name, card.version, best.series.uid, digest, card.runtime.priority))
    return decisions, plans


def _best(verdicts: Sequence[Verdict], card: Card) -> Verdict | None:
    fitting = sorted((v for v in verdicts if v.stack), key=lambda v: _preference(v, card))
    unfit = sorted((v for v in verdicts if v.unfit), key=lambda v: (-len(v.series.instances), v.series.uid))
    return next(iter([*fitting, *unfit]), None)


def _preference(verdict: Verdict, card: Card) -> tuple[float, float, bool, int, str]:
    assert verdict.stack is not None
    spacing, slices = verdict.stack.spacing_mm[0], len(verdict.stack.instances)
    derived = verdict.series.first.image_type[:1] == ("DERIVED",)
    first, second = (round(spacing, 2), -slices) if card.accepts.prefer == "thinnest" else (-slices, round(spacing, 2))
    return first, second, derived, verdict.series.first.series_number or 0, verdict.series.uid


def _decision(card: Card, verdict: Verdict, best: Verdict | None) -> Decision:
    reason, chosen = verdict.reason, verdict is best
    if chosen and verdict.stack is None:
        reason = f"it is what the model reads, but unfit, which will be the answer: {reason}"
    if verdict.stack and best and not chosen:
        reason = f"it suits the model ({reason}), but {_named(best)} is preferred ({best.reason})"
    return Decision(card.name, verdict.series.uid, _named(verdict), chosen, reason)


def _named(verdict: Verdict) -> str:
    return f"{_title(verdict.series)}, {verdict.part}" if verdict.part else _title(verdict.series)


def _title(series: Series) -> str:
    number = series.first.series_number
    return f"series {number}" if number is not None else "a series without a number"
