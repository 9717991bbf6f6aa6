"""What an answer to C-STORE or STOW-RS means for what to do next (PS3.4 Table B.2-1, PS3.7 Annex C, PS3.18 I.2.2)."""

from __future__ import annotations

from overread.domain.delivery import Outcome, Told

_ENABLE = "configuration fault: SOP class not supported; have it enabled there, or leave this kind of result out"

_EXACT: dict[int, tuple[Outcome, str]] = {
    0x0000: (Outcome.TAKEN, "stored"),
    0x0001: (Outcome.WARNED, "requested optional attributes are not supported"),
    0x0105: (Outcome.REFUSED, "no such attribute"),
    0x0106: (Outcome.REFUSED, "invalid attribute value"),
    0x0107: (Outcome.WARNED, "attribute list error"),
    0x0110: (Outcome.BUSY, "processing failure"),
    0x0111: (Outcome.DUPLICATE, "duplicate SOP instance: it has an object of this UID already"),
    0x0115: (Outcome.REFUSED, "invalid argument value"),
    0x0116: (Outcome.WARNED, "attribute value out of range"),
    0x0117: (Outcome.REFUSED, "invalid SOP instance"),
    0x0118: (Outcome.REFUSED, "no such SOP class"),
    0x0120: (Outcome.REFUSED, "missing attribute"),
    0x0121: (Outcome.REFUSED, "missing attribute value"),
    0x0122: (Outcome.MISCONFIGURED, _ENABLE),
    0x0124: (
        Outcome.MISCONFIGURED,
        "configuration fault: not authorised; have the calling AE title, or the account, allowed to store there",
    ),
    0x0211: (Outcome.REFUSED, "unrecognised operation"),
    0x0212: (Outcome.REFUSED, "mistyped argument"),
    0x0213: (Outcome.BUSY, "resource limitation"),
}

_RANGES: dict[int, tuple[Outcome, str]] = {
    0xA7: (Outcome.BUSY, "out of resources; free space there"),
    0xA8: (Outcome.MISCONFIGURED, _ENABLE),
    0xA9: (Outcome.REFUSED, "data set does not match the SOP class; its log says which attribute it minds"),
}

COERCED = 0xB000
TRANSFER_SYNTAX = 0xC122  # of STOW-RS: the transfer syntax is the one thing that is minded
_WARNINGS = {
    COERCED: "coercion of data elements",
    0xB006: "elements discarded",
    0xB007: "data set does not match the SOP class",
}


def outcome_of(status: int) -> tuple[Outcome, str]:
    """What ``status`` (0x0000 … 0xFFFF) means, and the reason in words with the remedy where there is one.

    A failure that the Standard does not name is taken for a passing one: giving up is left to patience.
    """
    if status in _EXACT:
        return _EXACT[status]
    if status >> 8 in _RANGES:
        return _RANGES[status >> 8]
    if status >> 12 == 0xB:
        return Outcome.WARNED, _WARNINGS.get(status, "stored with a warning")
    if status == TRANSFER_SYNTAX:
        return Outcome.REFUSED, "transfer syntax not supported"
    if status >> 12 == 0xC:
        return Outcome.REFUSED, "cannot understand; its log says what it minds"
    return Outcome.BUSY, "a failure that the Standard does not name"


def told(status: int, comment: str = "") -> Told:
    """The outcome of ``status`` with the status in its reason; ``comment`` is what the peer said to it.

    The comment is shortened and kept to one line: it is the peer's text, and may be anything.
    """
    outcome, reason = outcome_of(status)
    said = f" ({one_line(comment)})" if comment.strip() else ""
    return Told(outcome, "" if outcome is Outcome.TAKEN else f"it answered 0x{status:04X}: {reason}{said}")


def one_line(text: str) -> str:
    """At most 64 printable characters of a foreign text."""
    return "".join(c if c.isprintable() else " " for c in text.strip()[:64])
