"""What the layers hold on to in pynetdicom, and whether it is still there."""

from __future__ import annotations

import inspect
from typing import Any

from pynetdicom import AE
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

# Replaced or called: name → parameters after self.
METHODS: dict[tuple[type, str], tuple[str, ...]] = {
    (RequestHandler, "_create_association"): (),
    (RequestHandler, "handle"): (),
    (AssociationServer, "handle_error"): ("request", "client_address"),
    (AssociationServer, "server_bind"): (),
    (AssociationServer, "service_actions"): (),
    (AssociationSocket, "recv"): ("nr_bytes",),
    (AssociationSocket, "send"): ("bytestream",),
    (AssociationSocket, "close"): (),
    (DULServiceProvider, "run_reactor"): (),
    (DULServiceProvider, "_read_pdu_data"): (),
    (DULServiceProvider, "_is_transport_event"): (),
    (DULServiceProvider, "_process_recv_primitive"): (),
    (DULServiceProvider, "kill_dul"): (),
    (DULServiceProvider, "stop_dul"): (),
    (DULServiceProvider, "send_pdu"): ("primitive",),
    (DULServiceProvider, "idle_timer_expired"): (),
    (DULServiceProvider, "peek_next_pdu"): (),
    (DIMSEServiceProvider, "receive_primitive"): ("primitive",),
    (DIMSEServiceProvider, "send_msg"): ("primitive", "context_id"),
    (DIMSEServiceProvider, "get_msg"): ("block",),
    (DIMSEMessage, "decode_msg"): ("primitive", "assoc"),
    (DIMSEMessage, "message_to_primitive"): (),
    (StateMachine, "do_action"): ("event",),
    (Association, "run"): (),
    (Association, "run_reactor"): (),
    (Association, "_run_reactor"): (),
    (Association, "_serve_request"): ("msg", "context_id"),
    (Association, "kill"): (),
    (Timer, "start"): (),
    (Timer, "restart"): (),
    (Timer, "stop"): (),
}
PROPERTIES = [(AssociationSocket, "ready"), (Timer, "expired"), (Timer, "remaining"), (Timer, "timeout")]
ATTRIBUTES = {
    "association": ("_accepted_cx", "_dul_ready", "_is_paused", "_kill", "_reactor_checkpoint", "dimse", "dul", "acse"),
    "dul": ("_idle_timer", "_kill_thread", "artim_timer", "event_queue", "socket", "state_machine", "to_provider_queue",
            "to_user_queue"),
    "dimse": ("message", "msg_queue"),
    "message": ("data_set", "_data_set_file"),
}  # fmt: skip


def moved() -> list[str]:
    """Names that this pynetdicom does not have as the layers need them; empty when all is well."""
    lost = [f"{c.__name__}.{name}" for (c, name), wanted in METHODS.items() if _parameters(c, name) != wanted]
    lost += [f"{c.__name__}.{name}" for c, name in PROPERTIES if not isinstance(getattr(c, name, None), property)]
    association = Association(AE("PROBE"), MODE_ACCEPTOR)
    parts: dict[str, Any] = {
        "association": association,
        "dul": association.dul,
        "dimse": association.dimse,
        "message": DIMSEMessage(),
    }
    return lost + [f"{part}.{n}" for part, names in ATTRIBUTES.items() for n in names if not hasattr(parts[part], n)]


def _parameters(holder: type, name: str) -> tuple[str, ...] | None:
    method = getattr(holder, name, None)
    if not callable(method):
        return None
    return tuple(inspect.signature(method).parameters)[1:]
