"""From what the settings say of a destination to what its kind is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from overread.domain.errors import ConfigError
from overread.domain.peer import Peer
from overread.spool.answers import AnswerBox

USUAL_PROOFS = {"dimse": "c-find", "stow": "qido", "folder": "read-back", "object-store": "read-back"}


class Wanted(Protocol):
    """The settings of one destination, as far as they are options of its kind (``settings.deliver.Deliver``)."""

    name: str
    kind: str
    proof: str
    variants: tuple[str, ...]
    deflated: bool


def options(to: Any, own_ae_title: str, box: AnswerBox) -> dict[str, Any]:
    """Keyword arguments for the kind's maker. A kind of another distribution gets the settings as they are."""
    makers: dict[str, Callable[[Any, str, AnswerBox], dict[str, Any]]] = {
        "dimse": _dimse,
        "stow": _stow,
        "folder": lambda t, *_: {"folder": Path(t.folder)},
        "object-store": lambda t, *_: {"url": t.url, "options_file": t.options_file},
    }
    if to.kind not in makers:
        return {"name": to.name, "settings": to}
    return {"name": to.name, "variants": to.variants, **makers[to.kind](to, own_ae_title, box)}


def proof_of(to: Wanted) -> str:
    """The proof that is asked for: that of the settings, or the usual one of the kind (``auto``)."""
    return USUAL_PROOFS.get(to.kind, "none") if to.proof == "auto" else to.proof


def _dimse(to: Any, own_ae_title: str, box: AnswerBox) -> dict[str, Any]:
    from overread.deliver.dimse import Calling

    tls = _tls(to).context(to.name) if to.tls else None
    peer = Peer(to.ae_title, to.host, to.port)
    calling = Calling(peer, own_ae_title, to.calling_ae, to.timeout_s, tls, to.concurrency, to.deflated)
    return {"calling": calling, "witness": _witness(to, proof_of(to), box)}


def _witness(to: Any, proof: str, box: AnswerBox) -> Any:
    from overread.deliver.commitment import Committer
    from overread.deliver.proofs import by_find, unasked
    from overread.deliver.retrieving import Mover, by_get

    if proof == "commitment":
        fallback = _witness(to, to.commitment_fallback, box) if to.commitment_fallback else None
        return Committer(to.commitment_deadline_s, box, fallback)
    if proof == "c-move":
        return Mover(to.move_ae_title, to.move_port)
    known = {"c-find": by_find, "c-get": by_get, "none": unasked}
    if proof not in known:
        can_be = ", ".join(("commitment", "c-move", *known))
        raise ConfigError(f"destination {to.name!r}: proof is {proof!r}; it can be {can_be}")
    return known[proof]


def _stow(to: Any, _own: str, _box: AnswerBox) -> dict[str, Any]:
    from overread.deliver.auth import Credentials
    from overread.deliver.stow import Server

    credentials = Credentials(
        to.auth, to.user, to.password_file, to.token_file, to.token_url, to.client_id, to.client_secret_file, to.scope
    )
    return {"server": Server(to.url, credentials, _tls(to), to.timeout_s, to.deflated), "proof": proof_of(to)}


def _tls(to: Any) -> Any:
    from overread.deliver.tls import Tls

    return Tls(to.ca, to.certificate, to.key)
