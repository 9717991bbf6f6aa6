"""A bundle run by its own evaluator, the way that always works; only its data are ours, and its handlers that load or
save files are left out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from overread.domain.errors import CardError
from overread.infer import compat
from overread.infer.composed import PARTS
from overread.infer.memory import name
from overread.infer.outcome import Outcome
from overread.infer.recipe import Recipe, drop_savers, inverts
from overread.infer.windows import count_windows

METRICS = ("key_val_metric", "additional_metrics", "metric_cmp_fn")
# What would turn boxes from the image's own indices into a file format's; ours are placed like masks.
BOX_ENDINGS = frozenset({"AffineBoxToWorldCoordinated", "ConvertBoxModed", "ConvertBoxToStandardModed", "DeleteItemsd"})


class Evaluated:
    """One bundle's evaluator, ready to run on one item after another."""

    def __init__(self, recipe: Recipe) -> None:
        section = recipe.evaluator()
        if section is None:
            lacking = next(part for part in PARTS if not recipe.has(part))
            raise CardError(
                f"the bundle's inference config has no {lacking!r} section and no evaluator of its own; "
                "overread cannot tell how it is run"
            )
        self._extra = _own_item(recipe, section)
        _adapt(recipe, section)
        self.preprocessing = recipe.build("preprocessing") if recipe.has("preprocessing") else None
        self._section, self.network = recipe.network()
        self.evaluator = recipe.build(section)
        self.inferer = getattr(self.evaluator, "inferer", None)
        self._postprocessing = recipe.build("postprocessing") if recipe.has("postprocessing") else None
        drop_savers(self._postprocessing)
        self._inverted = inverts(self._postprocessing)
        _initialise(recipe)
        self._device = recipe.device
        self.evaluator.logger.setLevel(logging.ERROR)
        if self.preprocessing is None:
            self.preprocessing = self.evaluator.data_loader.dataset.transform

    def start(self) -> None:
        """The weights are in: onto the device, and ready to infer."""
        self.network.to(self._device).eval()

    def run(self, item: Any, progress: Callable[[float], None]) -> Outcome:
        """Read one item, see ``recipe.feed``."""
        if isinstance(item, dict):
            item = {**self._extra, **item}
        self.evaluator.data_loader.dataset.data = [item]
        hook = self._count(progress)
        try:
            with torch.no_grad():
                self.evaluator.run()
        finally:
            hook.remove()
        output = self.evaluator.state.output
        output = output[0] if isinstance(output, list | tuple) else output
        image = output.get("image") if isinstance(output, dict) else None
        prediction = output.get("pred", output) if isinstance(output, dict) else output
        if isinstance(prediction, list | tuple) and len(prediction) == 1:
            prediction = prediction[0]
        return Outcome(prediction, _single(image), self._inverted)

    def _count(self, progress: Callable[[float], None]) -> Any:
        done = 0

        def after(_module: Any, given: Any, _answer: Any) -> None:
            nonlocal done
            done += int(given[0].shape[0]) if given and hasattr(given[0], "shape") else 1
            batch = getattr(self.evaluator.state, "batch", None)
            image: Any = batch.get("image") if isinstance(batch, dict) else None
            expected = count_windows(self.inferer, tuple(image.shape[2:])) if hasattr(image, "shape") else done + 1
            progress(min(0.95, 0.95 * done / max(expected, done + 1)))

        return self.network.register_forward_hook(after)


def _single(image: Any) -> Any:
    """The image of an item: of a batch of one, its only one."""
    if isinstance(image, list | tuple) and image:
        return image[0]
    return image


def _own_item(recipe: Recipe, section: str) -> dict[str, Any]:
    """What the bundle gives with each image that is no file: prompts and the like, as its own data has them."""
    dataset = _dataset(recipe, section)
    data = f"{dataset}#data"
    if dataset is None or not recipe.has(data) or not _self_contained(recipe.config[dataset]["data"], recipe.config):
        return {}
    items = recipe.build(data)
    first = items[0] if isinstance(items, list) and items else {}
    return {k: v for k, v in first.items() if not isinstance(v, str)} if isinstance(first, dict) else {}


def _self_contained(data: Any, config: dict[str, Any]) -> bool:
    """Whether a config gives the items themselves, and does not look for files that are not here."""
    text = str(data) + "".join(str(config.get(word.strip("[]@$ ()"), "")) for word in str(data).split())
    return "{" in text and not any(word in text for word in ("glob", "load_", "open(", " for ", "_target_"))


def _dataset(recipe: Recipe, section: str) -> str | None:
    loader = str(recipe.config[section].get("val_data_loader", "")).lstrip("@")
    inner = recipe.config.get(loader)
    found = str(inner.get("dataset", "")).lstrip("@") if isinstance(inner, dict) else ""
    return found if isinstance(recipe.config.get(found), dict) else None


def _adapt(recipe: Recipe, section: str) -> None:
    """Exchange the evaluator's data for one item in memory, and leave out what loads, saves or compares."""
    evaluator = recipe.config[section]
    loader = str(evaluator.get("val_data_loader", "")).lstrip("@")
    dataset = _dataset(recipe, section)
    if dataset is None:
        raise CardError("the bundle's evaluator has no val_data_loader with a dataset whose data could be exchanged")
    transform = recipe.config[dataset].get("transform", "@preprocessing")
    recipe.config[dataset] = {"_target_": "Dataset", "data": [{"image": name(0)}], "transform": transform}
    collate = recipe.config[loader].get("collate_fn")
    recipe.config[loader] = {"_target_": "DataLoader", "dataset": f"@{dataset}", "batch_size": 1, "num_workers": 0}
    if collate is not None:
        recipe.config[loader]["collate_fn"] = collate
    for key in METRICS:
        evaluator.pop(key, None)
    evaluator["val_handlers"] = []
    if "amp" in evaluator:
        evaluator["amp"] = evaluator["amp"] if recipe.device.type == "cuda" else False
    post = recipe.config.get("postprocessing")
    transforms = post.get("transforms") if isinstance(post, dict) else None
    for node in transforms if isinstance(transforms, list) else ():
        if compat.target(node) in BOX_ENDINGS:
            node["_disabled_"] = True


def _initialise(recipe: Recipe) -> None:
    """What the bundle does before it runs, but for loading weights, which we do, and for choosing kernels by speed."""
    lines = recipe.config.get("initialize") or []
    for n, line in enumerate(lines if isinstance(lines, list) else []):
        text = str(line).lower()
        if not any(word in text for word in ("checkpoint", "cudnn", "load")):
            recipe.build(f"initialize#{n}")
