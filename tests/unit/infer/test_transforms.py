"""What a card may name for preprocessing: data only, all of it there, undone in space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overread.domain.card import CT_IMAGE_STORAGE, Accepts, Card, Input, Label
from overread.domain.codes import Code
from overread.domain.errors import CardError
from overread.domain.pipeline import Inferer, Postprocess, Step
from overread.infer.engines import Grid
from overread.infer.feed import feed
from overread.infer.network import Network
from overread.infer.transforms import FUNCTIONS, MONAI_NAMES, build

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI's own deprecations

LABELS = tuple(Label(n, f"Label {n}", Code("39607008", "SCT", "Lung")) for n in (1, 2, 3))
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Orientation": {"axcodes": "RAS"},
    "Spacing": {"pixdim": [2.0, 2.0, 2.0]},
    "Resize": {"spatial_size": [9, 9, 9]},
    "Zoom": {"zoom": 1.2},
    "SpatialPad": {"spatial_size": [16, 16, 16]},
    "BorderPad": {"spatial_border": 2},
    "DivisiblePad": {"k": 4},
    "ResizeWithPadOrCrop": {"spatial_size": [12, 12, 12]},
    "SpatialCrop": {"roi_start": [1, 1, 1], "roi_end": [8, 8, 8]},
    "CenterSpatialCrop": {"roi_size": [6, 6, 6]},
    "CenterScaleCrop": {"roi_scale": 0.8},
    "ScaleIntensityRange": {"a_min": -1000, "a_max": 1000},
    "ScaleIntensityRangePercentiles": {"lower": 1, "upper": 99, "b_min": 0, "b_max": 1},
    "MedianSmooth": {"radius": 1},
    "skimage.restoration.denoise_nl_means": {"patch_size": 3, "patch_distance": 2},
    "ThresholdIntensity": {"threshold": 0.0},
    "ShiftIntensity": {"offset": 5.0},
    "StdShiftIntensity": {"factor": 0.1},
    "AdjustContrast": {"gamma": 2.0},
    "ClipIntensityPercentiles": {"lower": 1, "upper": 99},
    "SavitzkyGolaySmooth": {"window_length": 5, "order": 1},
    "GibbsNoise": {"alpha": 0.2},
    "GaussianSmooth": {"sigma": 1.0},
    "RepeatChannel": {"repeats": 2},
    "ImageFilter": {"kernel": "sobel", "kernel_size": 3},
    "SobelGradients": {"kernel_size": 3},
    "CastToType": {},
    "skimage.filters.difference_of_gaussians": {"low_sigma": 1.0},
    "skimage.exposure.equalize_adapthist": {"clip_limit": 0.02},
}


def card(*steps: Step, inputs: Sequence[str] = (), **parts: Any) -> Card:
    names = tuple(Input(name) for name in inputs)
    accepts = Accepts("CT", (CT_IMAGE_STORAGE,))
    return Card(
        "m", "1", "M", "us", "test", "w", "0", accepts, LABELS, Path("/m"), preprocess=steps, inputs=names, **parts
    )


class Plain(Network):
    """A network that the test gives."""

    answer: Callable[[torch.Tensor], Any]

    def load(self, card: Card, device: torch.device) -> Callable[[torch.Tensor], Any]:
        return type(self).answer


def read(card: Card, answer: Callable[[torch.Tensor], Any], *grids: Grid) -> Any:
    kind = type("Given", (Plain,), {"answer": staticmethod(answer)})
    return kind(card, "cpu").read(grids, lambda _: None)


def ball(shape: tuple[int, int, int] = (14, 20, 18)) -> Grid:
    """A bright ball, out of the middle, on an anisotropic oblique grid."""
    z, y, x = np.indices(shape)
    inside = ((z - 6) * 2.0) ** 2 + ((y - 8) * 1.0) ** 2 + ((x - 11) * 1.2) ** 2 < 36
    affine = np.eye(4)
    turn = np.array([[np.cos(0.2), -np.sin(0.2), 0], [np.sin(0.2), np.cos(0.2), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ np.array([[0, 0, 1.2], [0, 1.0, 0], [2.0, 0, 0]])
    affine[:3, 3] = (-30.0, 12.0, 5.0)
    return Grid(np.where(inside, 500, -500).astype(np.int16), affine)


def two(window: torch.Tensor) -> torch.Tensor:
    return torch.cat([-window, window], 1)


@pytest.mark.parametrize("name", sorted(MONAI_NAMES | FUNCTIONS))
def test_a_transform_that_may_be_named_is_there_and_works(name: str) -> None:
    transform = build(Step(name, (), ARGUMENTS.get(name, {})), ["image"])
    from monai.data import MetaTensor

    voxels = np.random.default_rng(0).random((1, 10, 11, 12), np.float32)
    given = MetaTensor(torch.from_numpy(voxels), affine=torch.eye(4, dtype=torch.float64))
    image = transform({"image": given})["image"]
    assert image.ndim == 4
    assert torch.isfinite(torch.as_tensor(image)).all()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Step("ScaleIntensityRnge"), "did you mean ScaleIntensityRange?"),
        (Step("skimage.filters.sobbel"), "did you mean skimage.filters.sobel"),
        (Step("Lambda", (), {"func": "print"}), "there is no preprocessing step 'Lambda'"),
        (Step("LoadImage"), "there is no preprocessing step 'LoadImage'"),
        (Step("RandAffine"), "there is no preprocessing step 'RandAffine'"),
        (Step("os.system", (), {"command": "true"}), "there is no preprocessing step 'os.system'"),
        (Step("Spacing", (), {"pixdim": "$__import__('os')"}), "a card holds no expressions"),
        (Step("Spacing", (), {"pixdim": [1.0, "$1"]}), "a card holds no expressions"),
        (Step("Spacing", (), {"pixel": 1.0}), "Spacing does not take these arguments"),
        (Step("Spacing", ("PET",), {"pixdim": 1.0}), "the card's inputs are image"),
        (Step("skimage.filters.gaussian", (), {"sigmas": 1}), "does not take these arguments"),
    ],
)
def test_what_a_card_may_not_name_is_refused_with_the_nearest(step: Step, said: str) -> None:
    with pytest.raises(CardError) as refused:
        build(step, ["image"])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (Step("Orientation", (), {"axcodes": "RAS"}),),
        (Step("Orientation", (), {"axcodes": "PIL"}), Step("CropForeground", (), {"margin": 1})),
        (Step("SpatialPad", (), {"spatial_size": [32, 32, 32]}), Step("Flip", (), {"spatial_axis": 1})),
        (Step("Rotate90", (), {"spatial_axes": [0, 1]}), Step("DivisiblePad", (), {"k": 8})),
    ],
)
@pytest.mark.parametrize("invert", ["probabilities", "labels"])
def test_what_only_turns_crops_and_pads_is_undone_exactly(steps: tuple[Step, ...], invert: str) -> None:
    source = ball()
    found = read(card(*steps, postprocess=Postprocess(invert=invert)), two, source).label_map
    assert ((found == 1) == (source.voxels > 0)).all()


@pytest.mark.parametrize("invert", ["probabilities", "labels"])
def test_a_resampled_mask_lands_where_it_was(invert: str) -> None:
    source = ball()
    steps = (Step("Orientation", (), {"axcodes": "RAS"}), Step("Spacing", (), {"pixdim": [0.8, 0.8, 0.8]}))
    found = read(card(*steps, postprocess=Postprocess(invert=invert)), two, source).label_map == 1
    wanted = source.voxels > 0
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.93
    assert np.abs(np.argwhere(found).mean(0) - np.argwhere(wanted).mean(0)).max() < 0.15


@pytest.mark.parametrize("layout", ["NCXYZ", "NCZYX", "NZCYX", "NCYX", "NYXC", "NXYZC"])
def test_a_network_gets_the_axes_that_its_card_spells(layout: str) -> None:
    image = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)  # C X Y Z
    sizes = {"N": 1 if "Z" in layout else 5, "C": 2, "X": 3, "Y": 4, "Z": 5}
    seen: list[tuple[int, ...]] = []

    def doubled(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return x * 2

    answer = feed(image, Inferer(layout, batch=5), doubled, lambda _: None)
    assert torch.equal(answer, image * 2)
    assert seen == [tuple(sizes[letter] for letter in layout)]


@pytest.mark.parametrize(
    "inferer", [Inferer(roi=(8, 8, 8)), Inferer("NCYX", roi=(8, 8), batch=3), Inferer("NCYX", batch=4)]
)
def test_windows_and_slices_give_what_the_whole_gives(inferer: Inferer) -> None:
    image = torch.rand(1, 12, 13, 14)
    told: list[float] = []
    answer = feed(image, inferer, lambda x: torch.cat([x, 1 - x], 1), told.append)
    assert torch.allclose(answer, torch.cat([image, 1 - image]), atol=1e-5)
    assert told == sorted(told) and 0 < told[-1] <= 0.95


def test_channels_for_themselves_become_masks_that_may_overlap() -> None:
    source = ball()

    def both(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, torch.ones_like(x), -x], 1)

    reading = read(card(postprocess=Postprocess("sigmoid", 0.5, (1, 2, 0))), both, source)
    assert set(reading.masks) == {1, 2}
    assert (reading.masks[1] == (source.voxels > 0)).all() and reading.masks[2].all()


def test_the_largest_part_is_kept_and_its_holes_are_filled() -> None:
    source = ball()
    voxels = source.voxels.copy()
    whole = voxels > 0
    voxels[6, 8, 11] = -500
    voxels[0, 0, 0] = 500
    post = Postprocess(keep_largest=("Label 1",), fill_holes=("Label 1",))
    found = read(card(postprocess=post), two, Grid(voxels, source.affine)).label_map
    assert ((found == 1) == whole).all()


def test_a_classification_has_a_probability_for_each_label() -> None:
    def judge(x: torch.Tensor) -> torch.Tensor:
        return torch.log(torch.tensor([[0.2, 0.5, 0.3]])).repeat(len(x), 1)

    for layout in ("NCXYZ", "NCYX"):
        reading = read(card(task="classification", inferer=Inferer(layout)), judge, ball())
        assert [(c.label, round(c.probability, 4), c.chosen) for c in reading.classes] == [
            (1, 0.2, False),
            (2, 0.5, True),
            (3, 0.3, False),
        ]


def test_a_derived_image_comes_back_on_the_source_grid() -> None:
    source = ball()
    step = Step("Orientation", (), {"axcodes": "RAS"})
    reading = read(card(step, task="image"), lambda x: x * 2, source)
    assert np.allclose(reading.image, source.voxels * 2.0)


def test_each_input_has_steps_of_its_own_and_its_place_among_the_channels() -> None:
    source = ball()
    other = Grid(np.zeros_like(source.voxels), source.affine)
    step = Step("ShiftIntensity", ("PET",), {"offset": 7.0})
    seen: list[torch.Tensor] = []
    read(card(step, inputs=("CT", "PET")), lambda x: (seen.append(x), two(x[:, :1]))[1], source, other)
    assert seen[0].shape[1] == 2
    assert float(seen[0][0, 0].max()) == 500 and (seen[0][0, 1] == 7).all()


@pytest.mark.parametrize(
    ("parts", "answer", "said"),
    [
        ({}, lambda x: x, "one output channel"),
        ({}, lambda x: two(x)[..., :-1], "its output must have the input's size"),
        ({"postprocess": Postprocess(channels=(0, 1, 2))}, two, "2 output channels, postprocess.channels names 3"),
        ({"task": "classification"}, lambda x: torch.zeros(1, 5), "for 3 classes"),
        ({}, lambda x: [], "answers a list"),
    ],
)
def test_an_answer_that_the_card_does_not_describe_is_refused(parts: Any, answer: Any, said: str) -> None:
    with pytest.raises(CardError, match=said):
        read(card(**parts), answer, ball())


def test_steps_in_space_for_one_input_only_are_refused() -> None:
    source = ball()
    step = Step("SpatialPad", ("PET",), {"spatial_size": [40, 40, 40]})
    with pytest.raises(CardError, match="must be for all"):
        read(card(step, inputs=("CT", "PET")), two, source, source)


def test_the_guide_names_every_step_and_no_other() -> None:
    guide = (Path(__file__).resolve().parents[3] / "models" / "engines.md").read_text("utf-8")
    part = guide.split("The steps there are:")[1].split("## nnU-Net")[0]
    module, named = "", set()
    for line in part.splitlines():
        if line.startswith("        "):
            named.update(module + word for word in line.split())
        elif line.strip():
            module = line.strip() if line.strip().endswith(".") else ""
    assert named == MONAI_NAMES | FUNCTIONS
