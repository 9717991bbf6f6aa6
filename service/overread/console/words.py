"""The ledger's stories in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from overread.console.deliveries import moment, sent, standings
from overread.domain.called import SEPARATOR
from overread.domain.job import JobState
from overread.ledger import Ledger, commitments, views
from overread.ledger.tables import CommitmentRow, DecisionRow, StudyRow
from overread.ledger.views import JobStory, StudyStory


def explain(story: StudyStory) -> Iterator[str]:
    """Everything about one study, line by line: what came, why each choice was made, what became of it."""
    study = story.study
    yield f"Study {study.uid}"
    yield f"  {_came(study)}"
    if study.called_aes:
        yield f"  sent to {study.called_aes.replace(SEPARATOR, ' and ')}"
    yield from _came_again(story)
    yield from _committed(study, story.commitments)
    yield from _choices(study, story.decisions)
    for job in story.jobs:
        yield from _job(job)
        yield from (f"    {line}" for line in sent(job, story.closed_to))
    if study.state == "COMPLETE" and not story.jobs and study.routed_revision == study.revision:
        yield "  No model reads it; nothing more will happen."


def status(ledger: Ledger, now: float, limit: int = 10) -> Iterator[str]:
    """The whole service on one screen."""
    counts = views.backlog(ledger, now)
    yield "studies     " + (_counted(counts.studies) or "none yet")
    jobs: dict[str, int] = {}
    for (_, state), n in counts.jobs.items():
        jobs[state] = jobs.get(state, 0) + n
    yield "jobs        " + (_counted(jobs) or "none yet")
    deliveries = {f"{to} {state}": n for (to, state), n in counts.deliveries.items()}
    yield "deliveries  " + (_counted(deliveries) or "none yet")
    if asked := commitments.counts(ledger):
        yield "commitments " + _counted(asked)
    yield from standings(ledger, now)
    yield from _busy(ledger)
    for row in views.recent_studies(ledger, limit):
        yield f"  {moment(row.last_at)}  {row.state:<9}  {row.instances:>5} instances  {row.modalities:<8}  {row.uid}"


def _came(study: StudyRow) -> str:
    kinds = study.modalities.replace(",", ", ") or "no modality"
    text = f"{study.instances} instances ({kinds}), first {moment(study.first_at)}, last {moment(study.last_at)}"
    if study.state == "RECEIVING":
        return f"{text}; it waits to be quiet for long enough to count as whole"
    purged = study.purged_at or 0.0
    gone = f"; its images were removed on {moment(purged)}" if purged >= study.last_at else ""
    return f"{text}; complete, revision {study.revision}{gone}"


def _came_again(story: StudyStory) -> Iterator[str]:
    study, told = story.study, story.conflicts
    if study.duplicates:
        yield f"  {study.duplicates} {'duplicate' if study.duplicates == 1 else 'duplicates'} acknowledged"
    if study.conflicts:
        yield f"  Other content came under a known SOP Instance UID ({study.conflicts}×); the newest is current:"
    for c in told:
        sender = f" from {c.calling_ae}" if c.calling_ae else ""
        yield (
            f"    {moment(c.at)}  {c.sop_instance_uid}{sender}: {c.new_path} is current since then, "
            f"{c.path} is kept beside it"
        )
    if study.conflicts > len(told):
        yield f"    and {study.conflicts - len(told)} more"


def _committed(study: StudyRow, asked: list[CommitmentRow]) -> Iterator[str]:
    for row in asked:
        kept = f"{row.instances - row.failed} of {row.instances} instances committed"
        told = f"{row.state.lower().replace('_', ' ')} {moment(row.reported_at)}" if row.reported_at else "not told yet"
        why = f" ({row.reason})" if row.reason else ""
        yield f"  Storage commitment for {row.calling_ae}, asked {moment(row.asked_at)}: {kept}; {told}{why}"
    if study.committed_until:
        yield f"  Its images are kept at least until {moment(study.committed_until)}, as was committed."


def _choices(study: StudyRow, decisions: list[DecisionRow]) -> Iterator[str]:
    newest = [d for d in decisions if d.revision == study.revision] or decisions
    of_model: dict[str, list[DecisionRow]] = {}
    for d in newest:
        of_model.setdefault(d.model, []).append(d)
    # Models that did not look at any series, all for one reason, are told together: there may be dozens.
    aloof: dict[str, list[str]] = {}
    for model, decided in of_model.items():
        if not any(d.series_uid for d in decided):
            aloof.setdefault(decided[0].reason, []).append(model)
    for models in (names for names in aloof.values() if len(names) > 1):
        yield f"  Models {', '.join(models)}:"
        yield f"    not run: {of_model.pop(models[0])[0].reason}"
        for model in models[1:]:
            of_model.pop(model)
    for model, decided in of_model.items():
        yield f"  Model {model}:"
        for d in decided:
            if not d.series_uid:
                yield f"    not run: {d.reason}"
            else:
                yield f"    {d.series_title}: {'chosen' if d.chosen else 'not chosen'}: {d.reason}"


def _job(story: JobStory) -> Iterator[str]:
    row = story.row
    yield f"  Job {row.id}: {row.model} {row.model_version}, {row.state}{f': {row.reason}' if row.reason else ''}"
    wanted = f", wanted by {moment(row.deadline)}{' and late' if row.late else ''}" if row.deadline else ""
    hint = f", hint {row.hint.replace(SEPARATOR, ' and ')}" if row.hint else ""
    yield f"    priority {row.urgency}{hint}{wanted}"
    for event in story.events:
        why = f" ({event.why})" if event.why else ""
        yield f"    {moment(event.at)}  {event.event} by {event.who}: {event.after}{why}"
    for attempt, death in story.deaths:
        yield f"    attempt {attempt}: its process was {death}"
        if death.said:
            yield f"      it said last: {death.said}"
    for result in story.results:
        variant = f" ({result.variant})" if result.variant else ""
        yield f"    made {result.kind}{variant}: {result.sop_instance_uid}"
    for origin in dict.fromkeys(result.provenance for result in story.results if result.provenance):
        yield f"    SHA-256 of {origin}"


def _busy(ledger: Ledger) -> Iterator[str]:
    for row in views.jobs_in(ledger, [JobState.RUNNING], 10):
        yield f"running     job {row.id}: {row.model} on {row.study_uid}, {row.progress:.0%}"
    for row in views.jobs_in(ledger, [JobState.FAILED], 10):
        yield f"failed      job {row.id}: {row.model} on {row.study_uid}: {row.reason}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
