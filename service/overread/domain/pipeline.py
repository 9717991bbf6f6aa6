"""What a card says of the way from a volume to labels: preprocessing, how the network is fed, what its output means.

Everything here is data. Nothing in a card is ever evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ACTIVATIONS = ("softmax", "sigmoid", "none")
INVERSIONS = ("probabilities", "labels")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Step:
    """One transform by name with its keyword arguments.

    ``name`` is MONAI's (``ScaleIntensityRange``) or scikit-image's (``skimage.filters.sobel``). ``inputs``: the inputs
    it is for; empty is all.
    """

    name: str
    inputs: tuple[str, ...] = ()
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inferer:
    """How the network is fed.

    ``layout`` spells the axes of its input: N batch, C channel, X Y Z as MONAI has them (right to left, front to back,
    or as Orientation left them; for a volume as it comes X are columns, Y rows, Z slices, or the frames of a cine).
    Without Z each slice is read alone, with the slices as batch. ``roi``: size of a sliding window along the spatial
    axes in that order; empty is the whole volume at once. ``overlap`` 0 … <1; ``batch``: windows or slices at once.
    """

    layout: str = "NCXYZ"
    roi: tuple[int, ...] = ()
    overlap: float = 0.25
    batch: int = 4


@dataclass(frozen=True)
class Network:
    """What may be saved on a network, because its authors found that it changes nothing that counts.

    ``precision``: ``bfloat16`` is faster where the processor has it, and rounds to 3 digits. ``empty_at_most``: a
    window in which no value, as the network sees it after preprocessing, is higher holds background only and need not
    be looked at; none (the default) looks at all.
    """

    precision: str = "float32"
    empty_at_most: float | None = None


@dataclass(frozen=True)
class Postprocess:
    """What the output's channels mean.

    ``activation``: ``softmax`` (the likeliest channel wins), ``sigmoid`` (each channel for itself, above
    ``threshold``), ``none`` (as it is: one channel of label values, or of a derived image). ``channels``: the label
    value of each channel, 0 for background; empty is 0, 1, 2 … for softmax and 1, 2, 3 … for sigmoid. ``invert``: what
    is brought back to the source grid, ``probabilities`` (smooth) or ``labels`` (nearest; less memory with many).
    ``keep_largest``, ``fill_holes``: names of labels.
    """

    activation: str = "softmax"
    threshold: float = 0.5
    channels: tuple[int, ...] = ()
    invert: str = "probabilities"
    keep_largest: tuple[str, ...] = ()
    fill_holes: tuple[str, ...] = ()


@dataclass(frozen=True)
class External:
    """A program that reads a folder of DICOM and writes a folder.

    ``command``: program and arguments, no shell; ``{input}``, ``{nifti}``, ``{output}`` and ``{model}`` become
    absolute paths. ``network = false`` runs it without any network, or not at all. ``memory_mb`` and ``cpu_s`` limit
    each of its processes, 0 does not. ``environment``: all that it gets beside PATH, LANG and a HOME of its own.
    ``segments``: for DICOM output, segment label → name of the card's label; without it the names must be the same.
    """

    command: tuple[str, ...] = ()
    network: bool = False
    memory_mb: int = 0
    cpu_s: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    segments: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One model of several in one card.

    ``within``: name of the label that an earlier stage found, to whose box, wider by ``margin_mm``, this stage is
    restricted; ``outside`` is what voxels outside the label are set to, none leaves them. ``each``: a classifier judges
    every connected component for itself. ``keep``: whether what it finds is a result or only a region for others.
    """

    name: str
    engine: str
    weights: str
    weights_sha256: str
    within: str = ""
    margin_mm: float = 0.0
    outside: float | None = None
    each: bool = False
    keep: bool = True
    task: str = "segmentation"
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    orientation: str = ""
    further_weights: dict[str, str] = field(default_factory=dict)
    preprocess: tuple[Step, ...] = ()
    inferer: Inferer = field(default_factory=Inferer)
    postprocess: Postprocess = field(default_factory=Postprocess)


def check_parts(inferer: Inferer, postprocess: Postprocess, labels: Sequence[str]) -> None:
    """Raise ValueError when a value cannot be; ``labels`` are the names of the card's."""
    letters = inferer.layout
    if len(set(letters)) != len(letters) or not {"N", "C", "X", "Y"} <= set(letters) <= set("NCXYZ"):
        raise ValueError(f"inferer.layout is {letters!r}; it spells N, C, X, Y and, unless slices are read alone, Z")
    if inferer.roi and len(inferer.roi) != len(letters) - 2:
        raise ValueError(f"inferer.roi has {len(inferer.roi)} sizes, the layout {letters} has {len(letters) - 2} axes")
    if inferer.roi and not letters.startswith("NC"):
        raise ValueError(f"a sliding window (inferer.roi) needs a layout that begins with NC, not {letters}")
    if not 0 <= inferer.overlap < 1 or inferer.batch < 1 or any(size < 1 for size in inferer.roi):
        raise ValueError("inferer: overlap must be from 0 to below 1, batch and the sizes of roi at least 1")
    if postprocess.activation not in ACTIVATIONS:
        raise ValueError(f"postprocess.activation is {postprocess.activation!r}; it can be {', '.join(ACTIVATIONS)}")
    if postprocess.invert not in INVERSIONS:
        raise ValueError(f"postprocess.invert is {postprocess.invert!r}; it can be {' or '.join(INVERSIONS)}")
    for name in (*postprocess.keep_largest, *postprocess.fill_holes):
        _require_label(name, labels, "postprocess")


def check_network(network: Network) -> None:
    """Raise ValueError when a value cannot be."""
    if network.precision not in PRECISIONS:
        raise ValueError(f"network.precision is {network.precision!r}; it can be {' or '.join(PRECISIONS)}")


def check_stages(stages: Sequence[Stage], labels: Sequence[str]) -> None:
    """Raise ValueError when a stage cannot be; ``labels`` are the names of the card's."""
    given: set[str] = set()
    for stage in stages:
        where = f"stage {stage.name!r}"
        check_parts(stage.inferer, stage.postprocess, labels)
        for name in stage.labels:
            _require_label(name, labels, where)
        if stage.within and stage.within not in given:
            raise ValueError(f"{where}: no earlier stage gives the label {stage.within!r}; list it in its `labels`")
        if stage.each and not stage.within:
            raise ValueError(f"{where}: `each` needs `within`, the label whose components are judged")
        given.update(stage.labels or labels)


def _require_label(name: str, labels: Sequence[str], where: str) -> None:
    if name not in labels:
        raise ValueError(f"{where}: there is no label {name!r}; the card's labels are {', '.join(labels)}")
