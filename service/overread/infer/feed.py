"""From the axes of a volume to those that a network wants, whole, in windows or slice by slice, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor

from overread.domain.errors import CardError
from overread.domain.pipeline import Inferer
from overread.infer.windows import Numbers, batch, count_windows

Predict = Callable[[Tensor], Any]
OURS = "CXYZ"


def feed(image: Tensor, inferer: Inferer, predict: Predict, progress: Callable[[float], None]) -> Tensor:
    """Run ``predict`` over ``image`` (channels, x, y, z).

    Returns (outputs, x, y, z), or (outputs,) when the network answers for the whole input at once; for a network that
    classifies slices, (outputs, slices). Raises CardError when the answer has neither shape.
    """
    sliced = "Z" not in inferer.layout
    order = [("Z" + OURS[:3] if sliced else "N" + OURS).index(a) for a in _spelled(inferer.layout, sliced)]
    batch = image.permute(3, 0, 1, 2) if sliced else image[None]
    batch = batch.permute(order).contiguous()
    answer = _run(batch, inferer, predict, progress, sliced)
    if answer.ndim == 2:
        return answer.T if sliced else answer[0]
    if answer.ndim != batch.ndim or _sizes(answer, inferer.layout) != _sizes(batch, inferer.layout):
        raise CardError(
            f"the network answers {tuple(answer.shape)} to an input of {tuple(batch.shape)}; "
            "its output must have the input's size, or be one row of numbers"
        )
    back = answer.permute([order.index(k) for k in range(len(order))])
    return back.permute(1, 2, 3, 0) if sliced else back[0]


def _spelled(layout: str, sliced: bool) -> str:
    return layout.replace("N", "Z") if sliced else layout


def _sizes(tensor: Tensor, layout: str) -> list[int]:
    return [size for letter, size in zip(layout, tensor.shape, strict=True) if letter != "C"]


def _run(
    given: Tensor, inferer: Inferer, predict: Predict, progress: Callable[[float], None], sliced: bool
) -> Tensor:
    parts = torch.split(given, batch(inferer.batch), dim=inferer.layout.index("N")) if sliced else (given,)
    window = _sliding(inferer) if inferer.roi else None
    expected = len(parts) * (count_windows(window, tuple(given.shape[2:])) if window else 1)
    done, numbers = 0, Numbers()

    def counted(x: Tensor) -> Tensor:
        nonlocal done
        answer = _first(predict(x))
        numbers(None, None, answer)
        done += int(x.shape[0]) if window else 1
        progress(min(0.95, 0.95 * done / expected))
        return answer

    answers = [window(part, counted) if window else counted(part) for part in parts]
    numbers.require()
    if len(answers) == 1:
        return answers[0]  # a copy of many classes is what may not fit
    return torch.cat(answers, dim=0 if answers[0].ndim == 2 else inferer.layout.index("N"))


def _sliding(inferer: Inferer) -> SlidingWindowInferer:
    return SlidingWindowInferer(inferer.roi, batch(inferer.batch), inferer.overlap, mode="gaussian")


def _first(answer: Any) -> Tensor:
    """Networks with several heads give the one that counts first."""
    while not isinstance(answer, Tensor):
        if isinstance(answer, dict):
            answer = list(answer.values())
        if not isinstance(answer, list | tuple) or not answer:
            raise CardError(f"the network answers a {type(answer).__name__}, not a tensor")
        answer = answer[0]
    return answer.float()
