"""A MONAI bundle, run in memory: its own preprocessing, network, inferer and postprocessing.

Only reading from and writing to files is exchanged: a reader for ``mem:`` names on the bundle's own LoadImage, and the
savers left out of its postprocessing. A bundle of the common shape runs as one stream; where its parts are all there
is to it they are run one by one, otherwise its own evaluator runs. The answer is the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from overread.domain.card import Card
from overread.domain.errors import Unfit
from overread.domain.lock import require_trusted
from overread.domain.reading import Reading
from overread.infer import surroundings
from overread.infer.checkpoint import load_weights
from overread.infer.composed import Composed, composable
from overread.infer.engines import Grid
from overread.infer.evaluated import Evaluated
from overread.infer.heads import reading
from overread.infer.memory import MemoryReader
from overread.infer.outcome import Outcome
from overread.infer.pictures import plane, stacked, thick
from overread.infer.recipe import Recipe, feed
from overread.infer.streamed import Streamed
from overread.infer.windows import Numbers, thinned


class Bundle:
    """One loaded bundle on one device.

    Raises CardError when the bundle lacks a part or its weights are not the ones on the card.
    """

    def __init__(self, card: Card, device: str) -> None:
        require_trusted(card.folder)
        self._card = card
        place = torch.device(device)
        surroundings.prepare(card.folder, place)
        with contextlib.chdir(card.folder):
            recipe = Recipe(card.folder, place)
            self._way: Composed | Evaluated = Composed(recipe) if composable(recipe) else Evaluated(recipe)
            load_weights(self._way.network, card)
            self._way.start()
            self._numbers = Numbers()
            self._way.network.register_forward_hook(self._numbers)
            self._stream = Streamed.of(self._way, card)
            self._reader = MemoryReader()
            self._item = feed(self._way.preprocessing, self._reader, max(1, len(card.inputs)))
        torch.backends.cudnn.benchmark = False
        self._notes = tuple(dict.fromkeys(recipe.notes))
        self._flat = _flat(self._way.network, self._way.inferer)
        self._colours = _colours(self._way.network) if self._flat and len(card.inputs) < 2 else 1

    def read(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        """Read one input; raises CardError when the bundle's output is not what its card says, Unfit when it is given
        other series than the card's inputs."""
        wanted = [row.name for row in self._card.inputs] or ["image"]
        if len(volumes) != len(wanted):
            named = ", ".join(wanted)
            raise Unfit(f"the model reads {len(wanted)} series together ({named}), it was given {len(volumes)}")
        self._numbers.forget()
        try:
            with contextlib.chdir(self._card.folder), thinned(self._way.inferer):
                seen = self._planes(volumes, progress) if self._flat else self._whole(volumes, progress)
        finally:
            self._reader.release()
        self._numbers.require()
        progress(1.0)
        return Reading(**{**vars(seen), "notes": (*self._notes, *seen.notes)})

    def _whole(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        self._reader.hold(volumes)
        if self._stream is not None:
            seen = self._stream.read(self._fresh(), volumes[0], progress)
            if seen is not None:
                return seen
        return self._told(self._way.run(self._fresh(), progress), volumes[0])

    def _fresh(self) -> Any:
        """The item to read: transforms may write into what they are given."""
        return dict(self._item) if isinstance(self._item, dict) else self._item

    def _told(self, outcome: Outcome, source: Grid) -> Reading:
        found = reading(outcome, self._card, source)
        if not self._card.saliency:
            return found
        from overread.infer.saliency import explained  # matplotlib and more, for those that ask for it

        return explained(found, outcome, self._way.network, self._card, source)

    def _planes(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        """A network for pictures reads slice by slice."""
        count = volumes[0].voxels.shape[0]
        if count > 1 and self._card.task not in ("segmentation", "image"):
            raise Unfit(f"the model reads one picture, the series has {count} slices")
        seen = []
        for k in range(count):
            self._reader.hold_plane(volumes, k, colours=self._colours)
            outcome = self._way.run(self._fresh(), lambda _: None)
            seen.append(self._told(thick(outcome), plane(volumes[0], k)))
            progress(0.95 * (k + 1) / count)
        return stacked(seen)


def _colours(network: torch.nn.Module) -> int:
    """3 for a network made for colour files: radiographs and mammograms are often kept in them, grey in each colour."""
    first = next((p for p in network.parameters() if p.ndim == 4), None)
    return 3 if first is not None and first.shape[1] == 3 else 1


def _flat(network: torch.nn.Module, inferer: Any) -> bool:
    """Whether the network reads pictures, and nothing in the bundle takes a volume apart into them."""
    widest = max((p.ndim for p in network.parameters()), default=0)
    return widest == 4 and getattr(inferer, "spatial_dim", None) is None
