"""TorchScript: loading only. torch calls the format deprecated; ``torch.export`` and ONNX are what to save anew in."""

from __future__ import annotations

import warnings
from io import BytesIO

import torch

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.infer.feed import Predict
from overread.infer.network import Network
from overread.infer.trust import verified


class TorchScript(Network):
    """A file of ``torch.jit.save``."""

    def load(self, card: Card, device: torch.device) -> Predict:
        """Raises CardError when the file is no TorchScript."""
        data = verified(card)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            try:
                module = torch.jit.load(BytesIO(data), map_location=device)
            except (RuntimeError, ValueError) as error:
                first = str(error).strip().splitlines()[0][:200]
                raise CardError(f"the weights {card.weights} are no TorchScript: {first}") from error
        predict: Predict = module.eval()
        return predict
