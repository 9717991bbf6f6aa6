"""ONNX by onnxruntime, the optional extra ``overread[onnx]``: no code in the file, so the safest from strangers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.infer.feed import Predict
from overread.infer.network import Network
from overread.infer.trust import verified


class Onnx(Network):
    """A network with one input; of several outputs the first counts."""

    def load(self, card: Card, device: torch.device) -> Predict:
        """Raises CardError when onnxruntime is not installed or refuses the file, or the network has several inputs."""
        running = session(card, verified(card), device.type)
        if len(running.get_inputs()) != 1:
            raise CardError(f"the network has {len(running.get_inputs())} inputs; stack series as channels of one")
        name = running.get_inputs()[0].name
        kind = np.float16 if "float16" in running.get_inputs()[0].type else np.float32

        def predict(x: Tensor) -> Tensor:
            answer: Any = running.run(None, {name: x.cpu().numpy().astype(kind)})[0]
            return torch.from_numpy(np.asarray(answer, np.float32))

        return predict


def session(card: Card, data: bytes, device: str) -> Any:
    """A running model of ``data``; raises CardError when onnxruntime is not there or does not take it."""
    try:
        import onnxruntime
    except ImportError:
        raise CardError("the engine needs onnxruntime; install it: pip install 'overread[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    wanted = ["CUDAExecutionProvider"] if device == "cuda" else []
    known = onnxruntime.get_available_providers()
    providers = [p for p in wanted if p in known] + ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:
        # onnxruntime's errors have no class of their own that it exports.
        first = str(error).strip().splitlines()[0][:200]
        raise CardError(f"the weights {card.weights} are no ONNX model that can be run: {first}") from error
