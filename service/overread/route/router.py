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
from overread.route.choice import Choice, choose, input_digest
from overread.route.rules import Verdict


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
        choices = choose(study, card, reader)
        for choice in choices:
            decisions += [_decision(card, choice, v) for v in choice.verdicts]
        first, lacking = choices[0].best, [c.row.name for c in choices if c.best is None]
        if first is None or lacking:
            decisions.append(Decision(card.name, "", "", False, _nothing(lacking)))
            continue
        priority = card.runtime.priority
        plans.append(Plan(card.name, card.version, first.series.uid, input_digest(choices), priority))
    return decisions, plans


def _nothing(lacking: Sequence[str]) -> str:
    named = [name for name in lacking if name]
    if not named:
        return "no series of the study suits the model"
    return f"no series of the study is the model's {' or '.join(named)}"


def _decision(card: Card, choice: Choice, verdict: Verdict) -> Decision:
    best, reason, chosen = choice.best, verdict.reason, verdict is choice.best
    if chosen and verdict.stack is None:
        reason = f"it is what the model reads, but unfit, which will be the answer: {reason}"
    if verdict.stack and best and not chosen:
        reason = f"it suits the model ({reason}), but {_named(best)} is preferred ({best.reason})"
    if choice.row.name:
        reason = f"as {choice.row.name}: {reason}"
    return Decision(card.name, verdict.series.uid, _named(verdict), chosen, reason)


def _named(verdict: Verdict) -> str:
    return f"{_title(verdict.series)}, {verdict.part}" if verdict.part else _title(verdict.series)


def _title(series: Series) -> str:
    number = series.first.series_number
    return f"series {number}" if number is not None else "a series without a number"
