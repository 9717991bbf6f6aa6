"""``torch.export``: a graph in a .pt2 file, with its weights and without code."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import torch

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.infer.feed import Predict
from overread.infer.network import Network
from overread.infer.trust import verified


class Exported(Network):
    """A file of ``torch.export.save``."""

    def load(self, card: Card, device: torch.device) -> Predict:
        """Raises CardError when the file is no exported program, or one that this torch cannot read."""
        data = verified(card)
        try:
            program: Any = torch.export.load(BytesIO(data))
            if device.type != "cpu":
                program = torch.export.passes.move_to_device_pass(program, device)
        except Exception as error:
            # The edge to a reader of foreign files, which raises whatever its parts raise.
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise CardError(f"the weights {card.weights} are no torch.export program: {first}") from error
        predict: Predict = program.module()
        return predict
