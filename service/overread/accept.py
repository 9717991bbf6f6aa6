"""``overread accept``: a site's acceptance test. What can be proven of its own PACS, and of the service beside it?

A study of nobody, with a segmentation and a report whose truth is known, goes to each destination as results do; the
proof that the site has configured is waited for; everything is fetched back, and the segmentation is placed on the
images by nothing but what came back. With ``whole`` such a study also goes through the running service.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydicom import Dataset, dcmread

from overread import wiring
from overread.console.acceptance import Acceptance, Step, Verdict
from overread.domain.canary import study_uid
from overread.domain.delivery import Item, Outcome, Standing
from overread.domain.errors import OverreadError, Rejected
from overread.ledger import views
from overread.ports import Destination
from overread.settings import Deliver, Settings
from overread.simulate.canary import judge, release, where
from overread.simulate.sample import SHOWN, Sample, make_sample
from overread.simulate.verdict import dice, montage, read_overlay
from overread.simulate.words import measurements
from overread.spool.answers import AnswerBox

ASK_S, LOOK_S = 1.0, 0.5
EXACT = 0.9999
_STORED = (Outcome.TAKEN, Outcome.WARNED, Outcome.DUPLICATE)


def accept(settings: Settings, chosen: Sequence[Deliver], wait_s: float, *, whole: bool) -> Acceptance:
    """Look at the ``chosen`` destinations, and with ``whole`` at the running service. What fails is told."""
    seen = Acceptance()
    with tempfile.TemporaryDirectory(prefix="overread-accept-") as made:
        folder = Path(made)
        sample = make_sample(folder / "sample", study_uid(time.time()), datetime.now(UTC).isoformat(timespec="seconds"))
        for to in chosen:
            visit = _Visit(seen, to.name, sample, folder / to.name, wait_s)
            with visit.looking("the test"):
                visit.pay(wiring.destination(settings, to), wiring.answer_box(settings))
    if whole:
        _fly(seen, settings, wait_s)
    return seen


@dataclass(frozen=True)
class _Visit:
    """One destination is looked at, step by step, until a step makes the next one senseless."""

    seen: Acceptance
    place: str
    sample: Sample
    folder: Path
    wait_s: float

    @contextmanager
    def looking(self, what: str) -> Iterator[None]:
        """What is raised in this block is a step that failed."""
        try:
            yield
        except (OverreadError, ValueError) as error:
            self.say(what, Verdict.FAILED, str(error))

    def say(self, what: str, verdict: Verdict, said: str) -> None:
        self.seen.steps.append(Step(self.place, what, verdict, said))

    def pay(self, there: Destination, box: AnswerBox) -> None:
        """The whole visit."""
        with self.looking("it answers"):
            try:
                self.say("it answers", Verdict.PROVEN, there.check())
            except Rejected as error:  # it is there; whether it stores is another question
                self.say("it answers", Verdict.NOT_PROVEN, str(error))
            if taken := self._send(there):
                self._prove(there, box, taken)
                self._read_back(there, taken)
        close = getattr(there, "close", None)
        if close is not None:
            close()

    def _send(self, there: Destination) -> list[Item]:
        """What it has taken; nothing when a result is not among it."""
        began, what = time.monotonic(), "it takes a segmentation and a report, on images"
        told = list(there.send(self.sample.items))
        taken = [item for item, said in told if said.outcome in _STORED]
        refused = {item.result.kind: said.reason for item, said in told if said.outcome not in _STORED}
        warned = {said.reason for _, said in told if said.outcome is Outcome.WARNED}
        if refused.keys() == {"ct"} and len(taken) == len(self.sample.items) - len(self.sample.of_kind("ct")):
            # A system for results alone: they are placed on the images as they were made.
            self.say(what, Verdict.NOT_PROVEN, f"it takes the results and no images: {refused['ct']}")
            return taken
        if len(taken) < len(self.sample.items):
            reasons = "; ".join(sorted(set(refused.values()))) or "it took some of the objects only"
            self.say(what, Verdict.FAILED, reasons)
            return []
        took = f"{len(taken)} objects taken in {time.monotonic() - began:.1f} s"
        self.say(what, Verdict.PROVEN, "; ".join([took, *sorted(warned)]))
        return taken

    def _prove(self, there: Destination, box: AnswerBox, taken: Sequence[Item]) -> None:
        what, began = "it proves that it keeps them, as configured", time.monotonic()
        left, said = list(taken), ""
        while left and time.monotonic() - began < self.wait_s:
            stands = {item.result.sop_instance_uid: proven for item, proven in there.prove(left)}
            if {p.standing for p in stands.values()} == {Standing.UNASKED}:
                self.say(what, Verdict.NOT_PROVEN, 'proof = "none": its word is taken')
                return
            awaited = {p.transaction_uid for p in stands.values() if p.standing is Standing.AWAITED}
            good = _committed(box, awaited, self.wait_s - (time.monotonic() - began)) if awaited else set()
            good |= {uid for uid, proven in stands.items() if proven.standing is Standing.THERE}
            left = [item for item in left if item.result.sop_instance_uid not in good]
            said = next((p.reason for uid, p in stands.items() if uid not in good and p.reason), "")
            time.sleep(ASK_S if left else 0)
        if left:
            self.say(what, Verdict.FAILED, f"{len(left)} of {len(taken)} are not proven: {said}")
        else:
            took = time.monotonic() - began
            self.say(what, Verdict.PROVEN, f"all {len(taken)} objects proven after {took:.1f} s")

    def _read_back(self, there: Destination, taken: Sequence[Item]) -> None:
        what, give_back = "what it gives back is what was sent", getattr(there, "give_back", None)
        try:
            found = dict(_fetched(give_back, taken)) if give_back else {}
        except OverreadError as error:
            self.say(what, Verdict.NOT_PROVEN, f"nothing could be fetched, so geometry was not read back: {error}")
            return
        lost = [item for item in taken if item.result.sop_instance_uid not in found]
        if lost:
            self.say(what, Verdict.FAILED, f"{len(lost)} of {len(taken)} are not given back")
            return
        paths = {uid: _saved(dataset, self.folder / f"{uid}.dcm") for uid, dataset in found.items()}
        self._compare(found, taken)
        with self.looking("the segmentation lies where it was drawn"):
            self._place(paths)

    def _compare(self, found: dict[str, Dataset], taken: Sequence[Item]) -> None:
        from overread.deliver.comparison import compared_with

        changed = {
            proven.reason
            for item in taken
            if (proven := compared_with(item, found[item.result.sop_instance_uid])).standing is not Standing.THERE
        }
        what = "what it gives back is what was sent"
        if changed:
            self.say(what, Verdict.FAILED, "; ".join(sorted(changed)))
        else:
            self.say(what, Verdict.PROVEN, f"every data element of {len(found)} objects is as it was sent")

    def _place(self, paths: dict[str, Path]) -> None:
        images = [paths.get(item.result.sop_instance_uid, item.path) for item in self.sample.of_kind("ct")]
        (segmentation,) = (paths[item.result.sop_instance_uid] for item in self.sample.of_kind("seg"))
        overlay = read_overlay(segmentation, images)
        scores = dice(overlay, self.sample.phantom.truth, {label.value: label.name for label in SHOWN})
        told = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
        good = len(scores) == len(SHOWN) and min(scores.values()) >= EXACT
        verdict = Verdict.PROVEN if good else Verdict.FAILED
        self.say("the segmentation lies where it was drawn", verdict, f"by patient position alone, Dice: {told}")
        picture = self.folder / "overlay.png"
        montage(overlay, {label.name: label.color for label in SHOWN}, picture)
        self.seen.pictures[self.place] = picture.read_bytes()
        (report,) = (paths[item.result.sop_instance_uid] for item in self.sample.of_kind("sr"))
        numbers = list(measurements(report))
        verdict = Verdict.PROVEN if len(numbers) == len(SHOWN) else Verdict.FAILED
        self.say("the report can be read", verdict, "; ".join(numbers) or "it has no measurements")


def _committed(box: AnswerBox, transactions: set[str], wait_s: float) -> set[str]:
    """What is committed in these transactions, as soon as all are answered or the time is up."""
    good: set[str] = set()
    deadline, left = time.monotonic() + max(0.0, wait_s), set(transactions)
    while left and time.monotonic() < deadline:
        for path, answer in box.answers():
            if answer.transaction_uid in left:
                left.discard(answer.transaction_uid)
                good |= set(answer.succeeded) - set(answer.failed)
                box.done(path, wholly=True)
        time.sleep(LOOK_S if left else 0)
    return good


def _fetched(
    give_back: Callable[[Sequence[Item]], Iterator[tuple[Item, Dataset | None]]], items: Sequence[Item]
) -> Iterator[tuple[str, Dataset]]:
    for item, dataset in give_back(items):
        if dataset is not None:
            yield item.result.sop_instance_uid, dataset


def _saved(dataset: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    dcmread(path, stop_before_pixels=True)
    return path


def _fly(seen: Acceptance, settings: Settings, wait_s: float) -> None:
    """A study goes in at the listener and is followed in the ledger until its results are proven."""
    place, what, began = "the service", "a study goes through the whole service", time.time()
    uid, books = study_uid(began + 1), wiring.ledger(settings)
    try:
        release(wiring.canary_plan(settings), uid)
        sent_s = time.time() - began
        while (verdict := judge(story := views.story(books, uid))) is None and time.time() - began < wait_s:
            time.sleep(LOOK_S)
        arrived, reason = verdict or (False, f"it was not home after {wait_s:.0f} s: {where(story)}")
        took = f"sent in {sent_s:.1f} s; read, delivered and proven after {time.time() - began:.1f} s"
        seen.steps.append(Step(place, what, Verdict.PROVEN if arrived else Verdict.FAILED, took if arrived else reason))
    except OverreadError as error:
        seen.steps.append(Step(place, what, Verdict.FAILED, str(error)))
    finally:
        books.close()
