"""Which kind of head a bundle has, from its metadata and its config; and the reason why there is nothing to read."""

from __future__ import annotations

from overread.adopt.bundle import Described, nodes
from overread.domain.errors import CardError

BACKGROUND = frozenset({"background", "bg", "back", "none", "everything else", "_background_"})
CLASSES = frozenset({"classes", "classification", "class", "probabilities"})
BOXES = frozenset({"boxes", "box", "detection"})
MASKS = frozenset({"segmentation", "labels", "label", "mask", "seg", "onehot", "one-hot", "segment"})
IMAGES = frozenset({"magnitude", "image", "hounsfield", "hu", "kspace", "suv", "regression"})
OTHERS = {
    "points": "points (landmarks)",
    "tuples": "points or tuples",
    "latent": "a latent code",
    "feature": "features for another network",
    "displacement": "a displacement field",
}
PHOTOGRAPHED = ("patholog", "nuclei", "nuclear seg", "histolog", "endoscop", "dermat", "fundus", "retina", "cell image")
PICTURES = frozenset({"r", "g", "b", "red", "green", "blue"})


def task_of(bundle: Described) -> str:
    """``segmentation``, ``detection``, ``classification`` or ``image``.

    Raises CardError, saying why, for bundles that read no images or give what is no finding.
    """
    _require_images(bundle)
    kind, form = (str(bundle.output.get(key, "")).lower() for key in ("type", "format"))
    named = f"{bundle.text('task')} {bundle.text('name')} {bundle.folder.name}".lower()
    if kind in OTHERS or form in OTHERS:
        raise CardError(
            f"it gives {OTHERS.get(form) or OTHERS[kind]}; overread makes findings of segmentation, detection, "
            "classification and derived images"
        )
    detects, classifies = "detect" in named, "classif" in named
    rules = (
        ("detection", kind == "object" or form in BOXES or (form == "dict" and detects)),
        ("classification", form in CLASSES or kind in CLASSES or (classifies and _flat_head(bundle))),
        ("segmentation", form in MASKS or "segment" in named),
        ("detection", detects),
        ("classification", classifies),
        ("image", form in IMAGES),
    )
    return next((task for task, fits in rules if fits), None) or _by_config(bundle)


def _require_images(bundle: Described) -> None:
    if "LoadImage" not in str(bundle.config):
        raise CardError("nothing in its inference config loads an image (LoadImage), so there is nothing to give to it")
    kinds = {name: str(given.get("type", "image")).lower() for name, given in bundle.inputs.items() if _is(given)}
    if kinds and not any(kind in ("image", "magnitude", "png", "hounsfield", "") for kind in kinds.values()):
        raise CardError(f"it reads no image but {', '.join(kinds)} ({', '.join(kinds.values())})")
    for name, given in bundle.inputs.items():
        if not _is(given):
            continue
        channels = given.get("channel_def")
        colours = {str(c).lower() for c in channels.values()} if isinstance(channels, dict) else set()
        about = f"{bundle.text('task')} {bundle.text('name')} {bundle.folder.name}".lower()
        photographed = str(given.get("num_channels")) == "3" and any(word in about for word in PHOTOGRAPHED)
        if str(given.get("format", "")).upper() == "RGB" or len(colours & PICTURES) >= 3 or photographed:
            raise CardError(
                f"its {name} is a colour picture (endoscopy, pathology); overread reads grey values of CT, MR, PET, "
                "mammography, radiography and ultrasound"
            )


def _is(given: object) -> bool:
    return isinstance(given, dict)


def _targets(config: object) -> set[str]:
    """The last part of each component's name."""
    return {str(node.get("_target_", "")).rsplit(".", 1)[-1] for node in nodes(config)}


def _flat_head(bundle: Described) -> bool:
    """Whether nothing in the postprocessing brings a prediction back to the image's grid."""
    targets = _targets(bundle.config.get("postprocessing", {}))
    return not targets & {"Invertd", "SaveImaged"}


def _by_config(bundle: Described) -> str:
    targets = _targets(bundle.config)
    if any("Detector" in t or "RetinaNet" in t for t in targets):
        return "detection"
    if targets & {"SaveClassificationd", "ClassificationSaver"}:
        return "classification"
    if targets & {"AsDiscreted", "AsDiscrete"}:
        return "segmentation"
    raise CardError(
        "neither its metadata (network_data_format, task) nor its postprocessing says what it gives; add `task` to a "
        "card.toml beside it: segmentation, detection, classification or image"
    )
