"""What the bench reads: a chest CT as DICOM files, and published bundles with weights.

Weights are not published with the bundles. Random ones are the worst case for anything that is not the same to the last
bit: on every voxel the classes are about even. Decisive ones are trained for a minute, on crops of a generated chest:
two classes are told from each other, of more than two the first five.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from overread.adopt.unpack import lay_out
from overread.simulate.phantom import ChestPhantom, Grid, chest_phantom
from overread.simulate.study import write_study

if TYPE_CHECKING:
    import torch

SPACING_MM = (1.5, 0.78, 0.78)
SEED = 11
CROP = 64


def phantom(shape: tuple[int, int, int], seed: int = 3) -> ChestPhantom:
    """A chest of ``shape`` (slices, rows, columns): painted at half the resolution, with noise at the full one."""
    half = tuple(max(2, n // 2) for n in shape)
    small = chest_phantom(seed, Grid(half, tuple(2 * s for s in SPACING_MM)), noise_hu=0)
    hu, truth = (_doubled(array, shape) for array in (small.hu, small.truth))
    noise = np.random.default_rng(seed).normal(0, 15, shape).astype(np.int16)
    noisy = np.clip(hu + noise, -1024, 3071).astype(np.int16)
    return replace(small, hu=noisy, truth=truth, grid=Grid(shape, SPACING_MM))


def write_ct(folder: Path, shape: tuple[int, int, int]) -> None:
    """The CT as files, once."""
    if not folder.exists():
        write_study(phantom(shape), folder, seed=SEED)


def write_bundle(source: Path, folder: Path, weights: str, *, config: dict[str, Any] | None = None) -> None:
    """The bundle at ``source`` with weights, trusted, ready to be run by overread and by its own evaluator; once.

    ``weights`` is random or decisive; ``config`` changes its inference config."""
    if folder.exists():
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from bundles import adopt

    scratch = folder.parent / f"{folder.name}-scratch"
    scratch.mkdir(parents=True)
    laid = lay_out(source, scratch / "from" / source.name)
    if config:
        import json

        path = laid / "configs" / "inference.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **config}), "utf-8")
    (laid / "models").mkdir(exist_ok=True)
    if weights == "decisive":
        _train(laid)
    card = adopt(laid, scratch)
    shutil.move(card.folder, folder)
    shutil.rmtree(scratch)


def allow(folder: Path, **network: Any) -> None:
    """Write what the card allows on its network, and trust it so."""
    from overread.domain.lock import write_lock

    card = folder / "card.toml"
    told = "".join(f"{key} = {value if isinstance(value, float) else repr(value)}\n" for key, value in network.items())
    card.write_text(card.read_text("utf-8").split("\n[network]")[0] + f"\n[network]\n{told}", "utf-8")
    write_lock(folder, "2026-01-01T00:00:00+00:00", "the bench")


def _train(folder: Path, steps: int = 60) -> None:
    """On crops of a generated chest, its intensities as the bundle wants them: tissues by density, smoothed."""
    import torch

    from overread.infer import surroundings
    from overread.infer.recipe import Recipe

    torch.manual_seed(SEED)
    surroundings.prepare(folder, torch.device("cpu"))
    with contextlib.chdir(folder):
        recipe = Recipe(folder, torch.device("cpu"))
        _, network = recipe.network()
        steps_before = recipe.build("preprocessing").transforms
    made = phantom((96, 256, 256), seed=5)
    item: dict[str, Any] = {"image": torch.from_numpy(made.hu[:, ::2, ::2].astype(np.float32))[None]}
    for transform in steps_before:
        item = transform(item) if "Intensity" in type(transform).__name__ else item
    truth = torch.from_numpy(_tissues(made, _classes(recipe.config)))
    _fit(network, torch.as_tensor(item["image"])[0], truth, steps)
    torch.save(network.state_dict(), folder / "models" / "model.pt")


def _classes(config: dict[str, Any]) -> int:
    return int(config["network_def"]["out_channels"])


def _tissues(made: ChestPhantom, classes: int) -> NDArray[np.int64]:
    """The truth's labels against the rest for two classes; else air, lung, fat, flesh, bone."""
    if classes == 2:
        return (made.truth[:, ::2, ::2] > 0).astype(np.int64)
    smooth = ndimage.gaussian_filter(made.hu[:, ::2, ::2].astype(np.float32), 1.0)
    return np.digitize(smooth, (-950, -300, -20, 150)).astype(np.int64)


def _fit(network: torch.nn.Module, image: torch.Tensor, truth: torch.Tensor, steps: int) -> None:
    import torch

    _forget(network, int(truth.max()) + 1)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    network.train()
    rng = np.random.default_rng(SEED)
    for step in range(steps):
        starts = [[int(rng.integers(0, n - CROP + 1)) for n in image.shape] for _ in range(2)]
        boxes = [tuple(slice(s, s + CROP) for s in start) for start in starts]
        x = torch.stack([image[box] for box in boxes])[:, None]
        y = torch.stack([truth[box] for box in boxes])
        loss = torch.nn.functional.cross_entropy(network(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 19:
            print(f"trained {step + 1} steps, loss {float(loss):.3f}", file=sys.stderr)


def _forget(network: torch.nn.Module, classes: int) -> None:
    """Let the network begin by never answering with a class after the first ``classes``."""
    last = [layer for layer in network.modules() if isinstance(getattr(layer, "out_channels", None), int)][-1]
    last.bias.data[classes:] -= 20.0


def _doubled(array: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    for axis, length in enumerate(shape):
        array = np.take(array, np.minimum(np.arange(length) // 2, array.shape[axis] - 1), axis=axis)
    return array
