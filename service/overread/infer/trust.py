"""Weights from a model's folder, only when they are the ones on its card."""

from __future__ import annotations

import hashlib

from overread.domain.card import Card
from overread.domain.errors import CardError


def verified(card: Card) -> bytes:
    """The bytes of the card's weights; raises CardError when they lie elsewhere, are gone or differ from the card."""
    path = (card.folder / card.weights).resolve()
    if not path.is_relative_to(card.folder):
        raise CardError(f"the weights {card.weights} lie outside the model's folder")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CardError(f"the weights {card.weights} cannot be read: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != card.weights_sha256:
        raise CardError(
            f"the weights {card.weights} have SHA-256 {found[:12]}…, the card says {card.weights_sha256[:12]}…; "
            "put the right file back, or correct weights_sha256 if the change was meant"
        )
    return data
