"""All series of a study against all models: at most one series a model, and a sentence for each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overread.domain.called import SEPARATOR, CalledAE, Errand, errand, joined
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
    ledger: Ledger,
    cards: Sequence[Card],
    herald: Herald,
    served: Mapping[str, CalledAE] | None = None,
    reader: FrameReader | None = None,
) -> int:
    """Give every complete study that has not met the models yet to them; returns how many.

    ``served`` are our AE titles by name: to which of them a study was sent says how urgent its jobs are, and which
    models may read it. Jobs that wait follow when their study is sent to another title. ``reader`` knows the frames of
    multi-frame instances; without one they are declined.
    """
    titles = served or {}
    jobs.reorder(ledger, lambda called_aes: errand(called_aes, titles))
    studies = arrivals.unrouted(ledger)
    for study in studies:
        decisions, plans = route(study, cards, errand(study.called_aes, titles), reader)
        moves = jobs.plan(ledger, study.uid, study.revision, decisions, plans)
        if moves is None:
            continue
        herald(StudyRouted(study.uid, len(plans), len(cards) - len(plans)))
        for m in moves:
            herald(JobMoved(m.job.id, m.job.model, study.uid, m.before, m.after, "superseded by a later revision"))
    return len(studies)


def route(
    study: Study, cards: Sequence[Card], wish: Errand | None = None, reader: FrameReader | None = None
) -> tuple[list[Decision], list[Plan]]:
    """Decide which model reads which series of a study, and why; ``wish`` is what its called AE titles ask for.

    When none can be read but one is of the model's kind, that one is planned all the same: the job will end as not
    applicable with the reason, which is an answer, and not as silence.
    """
    wish, to = wish or Errand(), joined(study.called_aes)
    decisions: list[Decision] = []
    plans: list[Plan] = []
    for card in cards:
        if wish.models is not None and card.name not in wish.models:
            reason = f"the study was sent to {to.replace(SEPARATOR, ' and ')}, for other models"
            decisions.append(Decision(card.name, "", "", False, reason))
            continue
        choices = choose(study, card, reader)
        for choice in choices:
            decisions += [_decision(card, choice, v) for v in choice.verdicts]
        first, lacking = choices[0].best, [c.row.name for c in choices if c.best is None]
        if first is None or lacking:
            decisions.append(Decision(card.name, "", "", False, _nothing(lacking)))
            continue
        digest, order = input_digest(choices), wish.rank(card.runtime.priority)
        wanted_s = wish.due(0.0, card.runtime.deadline_s)
        plan = Plan(card.name, card.version, first.series.uid, digest, order, to, wish.priority, wish.hint, wanted_s)
        plans.append(plan)
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
