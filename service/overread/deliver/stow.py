"""A DICOMweb server as a destination: STOW-RS, and QIDO-RS or WADO-RS as the proof (PS3.18 Sections 10.5, 10.6, 10.4).

The HTTP status proves nothing, for servers answer 200 and store nothing: an object counts as taken when its SOP
Instance UID stands in the ReferencedSOPSequence of the response.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import Dataset

from overread.deliver.auth import ClientCredentials, Credentials
from overread.deliver.choice import chosen
from overread.deliver.comparison import compared_with
from overread.deliver.content import DEFLATED, EXPLICIT, part10
from overread.deliver.status import TRANSFER_SYNTAX, told
from overread.deliver.tls import Tls
from overread.domain.delivery import Item, Outcome, Proven, Standing, Told
from overread.domain.errors import ConfigError, Rejected, Unreachable

PROOFS = ("qido", "wado", "none")
_MOST_AT_ONCE_BYTES = 32 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Server:
    """Where the server is and how it is spoken to; ``url`` is the root below which ``/studies`` lies."""

    url: str
    credentials: Credentials = field(default_factory=Credentials)
    tls: Tls = field(default_factory=Tls)
    timeout_s: float = 30.0
    deflated: bool = True


class StowDestination:
    """Stores by STOW-RS. ``proof`` is qido, wado (read back and compared) or none."""

    def __init__(self, name: str, server: Server, *, proof: str = "qido", variants: Sequence[str] = ()) -> None:
        if proof not in PROOFS:
            raise ConfigError(f"destination {name!r}: proof is {proof!r}; it can be {', '.join(PROOFS)}")
        self.name, self.server, self.proof = name, server, proof
        self._variants = tuple(variants)
        server.tls.context(name)  # says now what is wrong with the files
        self._auth = server.credentials.auth(name, server.tls.ca or True, server.timeout_s)

    @property
    def unasked(self) -> bool:
        """Whether its word is taken."""
        return self.proof == "none"

    def send(self, items: Sequence[Item]) -> Iterator[tuple[Item, Told]]:
        """Store the objects, those of a study together; a deflated one that is refused as such goes again inflated.

        Raises Unreachable; what was sent last may have been stored or not then.
        """
        go, passed = chosen(items, self._variants, lambda _: True)
        yield from ((item, Told(Outcome.PASSED_OVER, "it got another variant of this")) for item in passed)
        client = _Client(self)
        for study_uid, group in groupby(go, key=lambda item: item.result.study_uid):
            for batch in _batches(list(group)):
                for item, said in self._store(client, study_uid, batch):
                    yield item, said
                    if said.outcome is Outcome.BUSY:
                        return

    def prove(self, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
        """What it says of each object. Raises Unreachable, or Rejected when it cannot be asked."""
        client = _Client(self)
        for item in items:
            if self.proof == "none":
                yield item, Proven(Standing.UNASKED)
            else:
                yield item, (self._find if self.proof == "qido" else self._read_back)(client, item)

    def give_back(self, items: Sequence[Item]) -> Iterator[tuple[Item, Dataset | None]]:
        """Each object as it is kept there, by WADO-RS; None for what is not there. Raises as ``prove``."""
        client = _Client(self)
        yield from ((item, self._retrieved(client, item)) for item in items)

    def check(self) -> str:
        """A QIDO-RS question; one line when it is answered, Unreachable with the reason and the remedy otherwise."""
        started = time.monotonic()
        client = _Client(self)
        client.ask(lambda web: web.search_for_studies(limit=1), "QIDO-RS")
        took_ms = (time.monotonic() - started) * 1000
        return f"{self.name}: {self.server.url} answers ({took_ms:.0f} ms)"

    def _store(self, client: _Client, study_uid: str, batch: Sequence[Item]) -> Iterator[tuple[Item, Told]]:
        datasets: dict[str, Dataset] = {}
        for item in batch:
            try:
                datasets[item.result.sop_instance_uid] = _dataset(item, self._syntax(item))
            except Rejected as error:
                yield item, Told(Outcome.REFUSED, str(error))
        answer = client.store(study_uid, list(datasets.values())) if datasets else Dataset()
        stored, refused = _stored(answer), _refused(answer)
        for item in batch:
            uid = item.result.sop_instance_uid
            if uid not in datasets:
                continue
            if refused.get(uid) == TRANSFER_SYNTAX and self._syntax(item) == DEFLATED:
                again = client.store(study_uid, [_dataset(item, EXPLICIT)])
                yield item, self._judge(uid, _stored(again), _refused(again))
            else:
                yield item, self._judge(uid, stored, refused)

    def _syntax(self, item: Item) -> str:
        own = item.result.transfer_syntax_uid
        return EXPLICIT if own == DEFLATED and not self.server.deflated else own

    def _judge(self, uid: str, stored: dict[str, int], refused: dict[str, int]) -> Told:
        if uid in refused:
            return told(refused[uid])
        if uid not in stored:
            return Told(Outcome.BUSY, "its answer does not name the object, so it counts as not stored")
        if stored[uid]:
            _log.warning("destination %r stored %s with warning 0x%04X", self.name, uid, stored[uid])
            return told(stored[uid])
        return Told(Outcome.TAKEN)

    def _find(self, client: _Client, item: Item) -> Proven:
        r = item.result
        filters = {"SOPInstanceUID": r.sop_instance_uid}
        found = client.ask(
            lambda web: web.search_for_instances(r.study_uid, r.series_uid, search_filters=filters), "QIDO-RS"
        )
        uids = {str((i.get("00080018", {}).get("Value") or [""])[0]) for i in found or []}
        there = r.sop_instance_uid in uids
        return Proven(Standing.THERE) if there else Proven(Standing.MISSING, "it was taken but is not found there")

    def _read_back(self, client: _Client, item: Item) -> Proven:
        found = self._retrieved(client, item)
        if found is None:
            return Proven(Standing.MISSING, "it was taken but is not given back")
        return compared_with(item, found)

    def _retrieved(self, client: _Client, item: Item) -> Dataset | None:
        r = item.result
        found: Dataset | None = client.ask(
            lambda web: web.retrieve_instance(r.study_uid, r.series_uid, r.sop_instance_uid), "WADO-RS"
        )
        return found

    @property
    def auth(self) -> Any:
        return self._auth


class _Client:
    """One HTTP session, whose failures become ours."""

    def __init__(self, destination: StowDestination) -> None:
        server = destination.server
        self._name, self._url, self._auth = destination.name, server.url, destination.auth
        session = requests.Session()
        session.trust_env = False
        session.auth = destination.auth
        session.verify = server.tls.ca or True
        session.headers["Accept"] = "application/dicom+json"
        if server.tls.certificate:
            session.cert = (server.tls.certificate, server.tls.key) if server.tls.key else server.tls.certificate
        session.hooks["response"].append(self._remember)
        whole = 2 * _MOST_AT_ONCE_BYTES  # not chunked, which not every server takes
        self._web = DICOMwebClient(server.url, session=session, timeout=server.timeout_s, chunk_size=whole)
        self._web.set_http_retry_params(retry=False)  # the outbox has the patience
        port = self._web.port
        self._web.host = f"{self._web.host}:{port}" if port not in (80, 443) else self._web.host
        self._last: requests.Response | None = None

    def store(self, study_uid: str, datasets: Sequence[Dataset]) -> Dataset:
        """What the server says of the objects, whatever its HTTP status; an empty dataset when it says nothing."""
        self._last = None
        self._call(lambda: self._web.store_instances(datasets, study_uid), "STOW-RS")
        return _said(self._last)

    def ask(self, question: Callable[[DICOMwebClient], Any], service: str) -> Any:
        """The answer to a question; None when it does not know what was asked for (404)."""
        return self._call(lambda: question(self._web), service)

    def _call(self, work: Callable[[], Any], service: str) -> Any:
        try:
            try:
                return work()
            except requests.HTTPError as error:
                if _status(error) != 401 or not isinstance(self._auth, ClientCredentials):
                    raise
                self._auth.forget()
                return work()
        except requests.HTTPError as error:
            return self._failed(_status(error), service)
        except requests.exceptions.SSLError:
            reason = "TLS failed; is its certificate one that ca trusts, and does it trust ours?"
            raise Unreachable(f"destination {self._name!r}: {reason}") from None
        except requests.RequestException as error:
            raise Unreachable(f"destination {self._name!r} cannot be reached ({type(error).__name__})") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if service == "STOW-RS" and self._last is not None:
                return None  # only the words of its answer were not understood; they are read apart
            said = f"destination {self._name!r} answers {service} with nonsense ({type(error).__name__})"
            raise Unreachable(said) from None

    def _failed(self, status: int, service: str) -> None:
        if status in (401, 403):
            said = f"configuration fault: it answered {status} to {service}: not authorised; check auth and its files"
            raise Unreachable(f"destination {self._name!r}: {said}, or have the account allowed there")
        if status == 404 and service != "STOW-RS":
            return
        if service == "STOW-RS" and status in (400, 409, 202) and _said(self._last):
            return
        if status in (400, 404, 405, 406, 410, 415, 501):
            said = f"configuration fault: it answered {status} to {service}; is url the root of its DICOMweb services?"
            raise Unreachable(f"destination {self._name!r}: {said}")
        raise Unreachable(f"destination {self._name!r} answered {status} to {service}")

    def _remember(self, response: requests.Response, *_: object, **__: object) -> None:
        self._last = response


def _dataset(item: Item, syntax: str) -> Dataset:
    return part10(item.result, item.path, syntax)


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        bytes_ = item.path.stat().st_size if item.path.exists() else 0
        if batch and size + bytes_ > _MOST_AT_ONCE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += bytes_
    if batch:
        yield batch


def _status(error: requests.HTTPError) -> int:
    return error.response.status_code if error.response is not None else 0


def _said(response: requests.Response | None) -> Dataset:
    """The store instances response (PS3.18 10.5.3.1) in JSON or XML; empty when there is none."""
    if response is None or not response.content:
        return Dataset()
    try:
        if "xml" in response.headers.get("Content-Type", ""):
            return _from_xml(response.content)
        return Dataset.from_json(json.loads(response.content))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Dataset()


def _from_xml(content: bytes) -> Dataset:
    from xml.etree.ElementTree import fromstring

    from dicomweb_client.web import _load_xml_dataset

    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("an answer with entities")
    made: Dataset = _load_xml_dataset(fromstring(content))
    return made


def _stored(answer: Dataset) -> dict[str, int]:
    """SOP Instance UIDs in the ReferencedSOPSequence, with their Warning Reason (0 for none)."""
    items = answer.get("ReferencedSOPSequence") or ()
    return {str(i.get("ReferencedSOPInstanceUID", "")): int(i.get("WarningReason") or 0) for i in items}


def _refused(answer: Dataset) -> dict[str, int]:
    """SOP Instance UIDs in the FailedSOPSequence, with their Failure Reason."""
    items = answer.get("FailedSOPSequence") or ()
    return {str(i.get("ReferencedSOPInstanceUID", "")): int(i.get("FailureReason") or 0x0110) for i in items}
