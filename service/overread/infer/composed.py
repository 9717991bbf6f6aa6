"""A bundle run part by part: its preprocessing, inferer, network and postprocessing, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer

from overread.infer import compat, group_norm
from overread.infer.outcome import Outcome
from overread.infer.recipe import Recipe, drop_savers, inverts
from overread.infer.windows import count_windows

PLAIN_EVALUATOR = frozenset(
    {"device", "val_data_loader", "network", "inferer", "postprocessing", "val_handlers", "amp", "mode"}
    | {"key_val_metric", "additional_metrics"}
)
PARTS = ("preprocessing", "postprocessing")
IMAGE, PREDICTION = "image", "pred"


def composable(recipe: Recipe) -> bool:
    """Whether running the parts is what the bundle's evaluator would do: then we keep hold of time and memory."""
    name = recipe.evaluator()
    if not all(recipe.has(part) for part in PARTS):
        return False
    if name is None:
        return True
    evaluator = recipe.config[name]
    given = {key for key in evaluator if not key.startswith("_")}
    inferer = recipe.config.get("inferer")
    own_inferer = isinstance(inferer, dict) and str(inferer.get("_target_", "")).startswith("scripts.")
    return compat.target(evaluator) == "SupervisedEvaluator" and given <= PLAIN_EVALUATOR and not own_inferer


class Composed:
    """The parts of one bundle, ready to run."""

    def __init__(self, recipe: Recipe) -> None:
        self.preprocessing = recipe.build("preprocessing")
        self.inferer = recipe.build("inferer") if recipe.has("inferer") else SimpleInferer()
        self._section, self.network = recipe.network()
        self.device = recipe.device
        self.postprocessing = recipe.build("postprocessing")
        drop_savers(self.postprocessing)
        self._inverted = inverts(self.postprocessing)
        self.volumetric = False

    def start(self) -> None:
        """The weights are in: onto the device, and ready to infer."""
        self.network = self.network.to(self.device).eval()
        dimensions = {p.ndim for p in [*self.network.parameters(), *self.network.buffers()]}
        self.volumetric = 5 in dimensions and 4 not in dimensions
        if self.volumetric:
            # The same numbers, about half the time on a CPU.
            self.network = self.network.to(memory_format=torch.channels_last_3d)
            group_norm.exchange(self.network)

    def run(self, item: Any, progress: Callable[[float], None]) -> Outcome:
        """Read one item, see ``recipe.feed``."""
        with torch.inference_mode():
            item = self.preprocessing(item)
            image = item[IMAGE] if IMAGE in item else next(v for v in item.values() if isinstance(v, MetaTensor))
            logits = self.inferer(torch.as_tensor(image)[None].to(self.device), self.counting(image, progress))
            logits = logits[0] if isinstance(logits, tuple | list) else logits
            answer = logits[0].float()
            del logits
            item[PREDICTION] = MetaTensor(answer, meta=image.meta, applied_operations=image.applied_operations)
            del answer
            item = self.postprocessing(item)
        return Outcome(item[PREDICTION], image, self._inverted)

    def counting(
        self, image: Any, progress: Callable[[float], None], network: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """The network, or what runs it, telling how far it is through ``image`` (channels, x, y, z)."""
        run = network or self.network
        expected, done = count_windows(self.inferer, tuple(image.shape[1:])), 0

        def predict(window: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if self.volumetric and window.ndim == 5:
                window = window.contiguous(memory_format=torch.channels_last_3d)
            answer = run(window, *args, **kwargs)
            done += int(window.shape[0])
            progress(min(0.95, 0.95 * done / expected))
            return answer

        return predict
