"""Another AE as a destination: C-STORE, and a proof that it kept what it took."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydicom import Dataset

from overread.deliver.association import IMPLICIT, VERIFICATION, Line, echo, name_of
from overread.deliver.choice import chosen
from overread.deliver.content import DEFLATED, EXPLICIT, as_dataset, data_set, transfer_syntaxes
from overread.deliver.lines import Lines
from overread.deliver.pdu import Pair
from overread.deliver.proofs import Asker, Witness, unasked
from overread.deliver.status import told
from overread.deliver.storing import Part, comment_of, store
from overread.domain.delivery import Item, Outcome, Proven, Told
from overread.domain.errors import Rejected
from overread.domain.peer import Peer
from overread.domain.result import Result

BORROWED = "borrowed"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calling:
    """Whom to call and as whom. ``calling_ae`` is ours, another title, or ``borrowed``: that of who sent the study.

    So many ``associations`` are open at once at most. Without ``deflated``, nothing goes deflated.
    """

    peer: Peer
    own_ae_title: str
    calling_ae: str = ""
    timeout_s: float = 30.0
    tls: ssl.SSLContext | None = None
    associations: int = 1
    deflated: bool = True

    def title(self, sender: str) -> str:
        """The calling AE title for a study that came from ``sender``."""
        if self.calling_ae == BORROWED:
            return sender or self.own_ae_title
        return self.calling_ae or self.own_ae_title


class DimseDestination:
    """A PACS, or any AE that stores.

    ``variants`` is the order of liking among results that say the same; ``witness`` how it proves what it has.
    """

    def __init__(self, name: str, calling: Calling, *, variants: Sequence[str] = (), witness: Witness) -> None:
        self.name, self.calling = name, calling
        self._variants = tuple(variants)
        self._lines = Lines(calling.peer, calling.timeout_s, calling.tls, calling.associations)
        self._asker = Asker(name, calling.title(""), self._lines)
        self._witness = witness

    @property
    def unasked(self) -> bool:
        """Whether its word is taken."""
        return self._witness is unasked

    def send(self, items: Sequence[Item]) -> Iterator[tuple[Item, Told]]:
        """Store the objects, each with the data set bytes of its file, over one association for each calling AE title.

        Of variants the first goes whose presentation contexts it accepts, and what is passed over is told before
        anything is sent. A peer that does not take the file's transfer syntax gets an uncompressed or deflated file as
        Explicit or Implicit VR Little Endian; nothing else is transcoded. An object that it is too busy for ends the
        round: what is not told of was not sent. Raises Unreachable (down, or silent: what was sent last may have been
        stored or not).
        """
        for title, group in groupby(items, key=lambda item: self.calling.title(item.calling_ae)):
            batch = list(group)
            try:
                with self._lines.line(title, self._proposals([item.result for item in batch])) as line:
                    for item, said in self._over(line, batch):
                        yield item, said
                        if said.outcome is Outcome.BUSY:
                            return
            except Rejected as error:  # it accepts nothing of all that
                yield from ((item, Told(Outcome.MISCONFIGURED, f"configuration fault: {error}")) for item in batch)

    def prove(self, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
        """What it says of each object when it is asked. Raises Unreachable, or Rejected when it cannot be asked."""
        return self._witness(self._asker, items)

    def give_back(self, items: Sequence[Item]) -> Iterator[tuple[Item, Dataset | None]]:
        """Each object as it is kept there, by C-MOVE where that is the proof, else by C-GET; None for what is missing.
        Raises as ``prove``."""
        from overread.deliver.retrieving import Mover, got

        fetched = self._witness.moved if isinstance(self._witness, Mover) else got
        for item, content in fetched(self._asker, items):
            yield item, None if content is None else as_dataset(*content)

    def check(self) -> str:
        """C-ECHO. One line when it is answered; raises Unreachable, or Rejected when it is there but does not verify,
        with the reason and the remedy."""
        started, peer = time.monotonic(), self.calling.peer
        try:
            with self._lines.line(self.calling.title(""), [(VERIFICATION, IMPLICIT)], keep=False) as line:
                status = echo(line)
        except Rejected as error:
            raise Rejected(f"destination {self.name!r} does not verify: {error}") from None
        if status != 0x0000:
            raise Rejected(f"destination {self.name!r} did not answer C-ECHO with success; look at its log")
        took_ms = (time.monotonic() - started) * 1000
        secured = " over TLS" if self.calling.tls else ""
        return f"{self.name}: {peer.ae_title} at {peer.host}:{peer.port} answers{secured} ({took_ms:.0f} ms)"

    def rest(self) -> None:
        """Nothing is to be sent for now: associations that were kept open are released."""
        self._lines.rest()

    def close(self) -> None:
        """Release all associations."""
        self._lines.rest(0.0)

    def _over(self, line: Line, items: Sequence[Item]) -> Iterator[tuple[Item, Told]]:
        def takes(result: Result) -> bool:
            return any((result.sop_class_uid, syntax) in line.accepted for syntax in self._syntaxes(result))

        go, passed = chosen(items, self._variants, takes)
        yield from ((item, Told(Outcome.PASSED_OVER, "it got another variant of this")) for item in passed)
        for item in go:
            if takes(item.result):
                yield item, self._store(line, item)
            else:
                yield item, self._unaccepted(item.result)

    def _store(self, line: Line, item: Item) -> Told:
        result = item.result
        syntax = next(s for s in self._syntaxes(result) if (result.sop_class_uid, s) in line.accepted)
        part = Part(result.sop_class_uid, result.sop_instance_uid, line.accepted[result.sop_class_uid, syntax])
        try:
            with data_set(result, item.path, syntax) as (source, size):
                answer = store(line, part, source, size)
        except Rejected as error:
            return Told(Outcome.REFUSED, str(error))
        said = told(answer.status or 0, comment_of(answer))
        if said.outcome is Outcome.WARNED:
            _log.warning("%r stored %s with warning 0x%04X", self.name, part.sop_instance_uid, answer.status)
        return said

    def _unaccepted(self, result: Result) -> Told:
        offered = ", ".join(name_of(s) for s in self._syntaxes(result))
        return Told(
            Outcome.MISCONFIGURED,
            f"configuration fault: it does not accept {name_of(result.sop_class_uid)} ({offered}); "
            "have it enabled there, or leave this kind of result out",
        )

    def _syntaxes(self, result: Result) -> list[str]:
        return transfer_syntaxes(result, deflated=self.calling.deflated)

    def _proposals(self, results: Sequence[Result]) -> list[Pair]:
        pairs = ((result.sop_class_uid, syntax) for result in results for syntax in self._syntaxes(result))
        return list(dict.fromkeys(pairs))


__all__ = ["DEFLATED", "EXPLICIT", "Calling", "DimseDestination"]
