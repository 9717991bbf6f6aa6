"""All series of a study against all models: at most one series a model, and a sentence for each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overread.domain.called import SEPARATOR, CalledAE, Errand, errand, joined
from overread.domain.card import Card
from overread.domain.events import JobMoved, StudyRouted
from overread.domain.study import Series, Study
from overread.ledger import Ledger, arrivals, jobs
from overread.ledger.jobs import Decision, Plan
from overread.ports import Herald
from overread.route.rules import Verdict, judge


def route_complete_studies(
    ledger: Ledger, cards: Sequence[Card], herald: Herald, served: Mapping[str, CalledAE] | None = None
) -> int:
    """Give every complete study that has not met the models yet to them; returns how many.

    ``served`` are our AE titles by name: to which of them a study was sent says how urgent its jobs are, and which
    models may read it. Jobs that wait follow when their study is sent to another title.
    """
    titles = served or {}
    jobs.reorder(ledger, lambda called_aes: errand(called_aes, titles))
    studies = arrivals.unrouted(ledger)
    for study in studies:
        decisions, plans = route(study, cards, errand(study.called_aes, titles))
        moves = jobs.plan(ledger, study.uid, study.revision, decisions, plans)
        if moves is None:
            continue
        herald(StudyRouted(study.uid, len(plans), len(cards) - len(plans)))
        for m in moves:
            herald(JobMoved(m.job.id, m.job.model, study.uid, m.before, m.after, "superseded by a later revision"))
    return len(studies)


def route(study: Study, cards: Sequence[Card], wish: Errand | None = None) -> tuple[list[Decision], list[Plan]]:
    """Decide which model reads which series of a study, and why; ``wish`` is what its called AE titles ask for."""
    wish, to = wish or Errand(), joined(study.called_aes)
    decisions: list[Decision] = []
    plans: list[Plan] = []
    for card in cards:
        if wish.models is not None and card.name not in wish.models:
            reason = f"the study was sent to {to.replace(SEPARATOR, ' and ')}, for other models"
            decisions.append(Decision(card.name, "", "", False, reason))
            continue
        verdicts = [judge(series, card) for series in study.series]
        fitting = sorted((v for v in verdicts if v.stack), key=lambda v: _preference(v, card))
        best = fitting[0] if fitting else None
        decisions += [_decision(card, v, best) for v in verdicts]
        if best is None or best.stack is None:
            decisions.append(Decision(card.name, "", "", False, "no series of the study suits the model"))
            continue
        order = wish.rank(card.runtime.priority)
        plan = Plan(card.name, card.version, best.series.uid, best.stack.digest(), order, to, wish.priority, wish.hint)
        plans.append(plan)
    return decisions, plans


def _preference(verdict: Verdict, card: Card) -> tuple[float, float, bool, int, str]:
    assert verdict.stack is not None
    spacing, slices = verdict.stack.spacing_mm[0], len(verdict.stack.instances)
    derived = verdict.series.first.image_type[:1] == ("DERIVED",)
    first, second = (round(spacing, 2), -slices) if card.accepts.prefer == "thinnest" else (-slices, round(spacing, 2))
    return first, second, derived, verdict.series.first.series_number or 0, verdict.series.uid


def _decision(card: Card, verdict: Verdict, best: Verdict | None) -> Decision:
    reason, chosen = verdict.reason, verdict is best
    if verdict.stack and best and not chosen:
        reason = f"it suits the model ({reason}), but {_title(best.series)} is preferred ({best.reason})"
    return Decision(card.name, verdict.series.uid, _title(verdict.series), chosen, reason)


def _title(series: Series) -> str:
    number = series.first.series_number
    return f"series {number}" if number is not None else "a series without a number"
