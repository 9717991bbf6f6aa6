"""The weights of a bundle: the right file by its digest, numbers only, into the network."""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import Any

import torch

from overread.domain.card import Card
from overread.domain.errors import CardError

HOLDERS = ("model", "state_dict", "model_state_dict", "network", "network_def", "net")


def load_weights(network: torch.nn.Module, card: Card) -> None:
    """Put the card's weights into ``network``; raises CardError when they are other weights, or do not fit."""
    path = card.folder / card.weights
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CardError(f"the weights {card.weights} cannot be read ({error.strerror}); copy the file there") from None
    found = hashlib.sha256(data).hexdigest()
    if found != card.weights_sha256:
        raise CardError(
            f"the weights {card.weights} have SHA-256 {found[:12]}…, the card says {card.weights_sha256[:12]}…; "
            "put the right file back, or correct weights_sha256 if the change was meant"
        )
    try:
        state = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        # The edge to the unpickler: what it refuses may be no checkpoint at all, or code.
        first = str(error).splitlines()[0][:200]
        raise CardError(f"the weights {card.weights} are no plain state dict: {first}") from error
    _fit(network, _state(state), card)


def _state(saved: Any) -> Any:
    """The state dict in a checkpoint: itself, or under one of the usual names; names without DataParallel's prefix."""
    while isinstance(saved, dict):
        holder = next((h for h in HOLDERS if isinstance(saved.get(h), dict)), None)
        if holder is None:
            break
        saved = saved[holder]
    if not isinstance(saved, dict):
        raise CardError("the weights are no state dict")
    if saved and all(str(key).startswith("module.") for key in saved):
        saved = {str(key)[len("module.") :]: value for key, value in saved.items()}
    return saved


def _fit(network: torch.nn.Module, state: dict[str, Any], card: Card) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise CardError(f"the weights {card.weights} do not fit the bundle's network: {first}") from error
