"""A card for a bundle that has none, from what the bundle says of itself; a person completes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from overread.adopt.bundle import Described, loaded_keys, texts, weights_of
from overread.adopt.codes import COLORS, Coded, look_up
from overread.adopt.task import BACKGROUND, task_of
from overread.domain.codes import Code

MODALITIES = {
    "ct": "CT", "mr": "MR", "mri": "MR", "mra": "MR", "pt": "PT", "pet": "PT", "mg": "MG", "mammogram": "MG",
    "mammography": "MG", "us": "US", "ultrasound": "US", "cr": "CR", "dx": "DX", "x-ray": "DX", "xray": "DX",
}  # fmt: skip
SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
}
# What a bundle's metadata may say for its card under "accepts".
HINTS = frozenset({"min_slices", "max_slices", "min_length_mm", "max_slice_spacing_mm", "body_parts", "prefer"})
# torch.where(x[[2]] > 0, 4, …) in a Lambda: channel 2 becomes the value 4.
RENUMBERED = re.compile(r"\[\[?\s*(\d+)\s*\]?\]\s*(?:>\s*[\d.]+|==\s*1)\s*,\s*(\d+)\s*,")


@dataclass(frozen=True)
class DraftLabel:
    """A label as the draft has it."""

    value: int
    name: str
    codes: Coded


def name_of(bundle: Described) -> str:
    """The model's name: the bundle's folder, fit for file names and metrics."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", bundle.folder.name).strip("._") or "model"


def modality_of(bundle: Described) -> str:
    """The DICOM modality of the first input; CT where the bundle names none and speaks of Hounsfield units, else MR."""
    for given in bundle.inputs.values():
        if isinstance(given, dict):
            named = str(given.get("modality") or "").lower()
            if named in MODALITIES:
                return MODALITIES[named]
            if str(given.get("format", "")).lower() == "hounsfield":
                return "CT"
    words = set(re.findall(r"[a-z-]+", f"{bundle.text('task')} {bundle.text('name')} {bundle.folder.name}".lower()))
    spelled = " ".join(words | set(bundle.folder.name.lower().split("_"))).split()
    return next((MODALITIES[w] for w in spelled if w in MODALITIES), "CT")


def inputs_of(bundle: Described) -> tuple[str, ...]:
    """Names of the series that the bundle reads together; empty for one."""
    keys = loaded_keys(bundle)
    if len(keys) > 1:
        return tuple(keys)
    given = next((v for v in bundle.inputs.values() if isinstance(v, dict)), {})
    named = given.get("channel_def")
    if isinstance(named, dict) and len(named) > 1 and str(given.get("num_channels")) == str(len(named)):
        return tuple(str(v) for v in named.values())
    return ()


def labels_of(bundle: Described, task: str) -> tuple[DraftLabel, ...]:
    """The labels that the bundle's ``channel_def`` names, with the values that its output has."""
    if task == "image":
        return ()
    channels = bundle.channels
    background = channels.get(0, "").strip().lower() in BACKGROUND
    if not channels:
        channels, background = _unnamed(bundle, task)
    renumbered = _renumbered(bundle) if not background else {}
    found = []
    for channel, name in sorted(channels.items()):
        if channel == 0 and background:
            continue
        value = renumbered.get(channel, channel if background else channel + 1)
        found.append(DraftLabel(value, _readable(name), look_up(name)))
    return tuple(found)


def draft(bundle: Described, name: str, weights_sha256: str = "") -> str:
    """The card's text. Raises CardError when there is nothing to read in the bundle."""
    task = task_of(bundle)
    return "\n".join([*_top(bundle, name, task, weights_sha256), *_accepts(bundle), *_labels(bundle, task)]) + "\n"


def _top(bundle: Described, name: str, task: str, weights_sha256: str) -> Iterator[str]:
    yield "# Drafted from the bundle's metadata. Look at each line: [accepts] decides which series it reads, the codes"
    yield "# of the labels are what the PACS is told. Then: overread models check " + name
    yield f"name = {_text(name)}"
    yield f"version = {_text(bundle.text('version') or '0')}"
    yield f"title = {_text((bundle.text('name') or name)[:64])}"
    yield f"manufacturer = {_text((bundle.text('authors') or bundle.text('copyright') or 'unknown')[:64])}"
    yield 'engine = "monai-bundle"'
    yield f"task = {_text(task)}"
    yield f"weights = {_text(weights_of(bundle))}"
    yield f"weights_sha256 = {_text(weights_sha256)}"
    yield f"purpose = {_text(bundle.text('intended_use') or 'Not stated by the bundle.')}"
    yield ""


def _accepts(bundle: Described) -> Iterator[str]:
    modality = modality_of(bundle)
    yield "[accepts]"
    yield f"modality = {_text(modality)}"
    yield f"sop_classes = [{_text(SOP_CLASSES[modality])}]"
    yield 'plane = "any"'
    hints = bundle.metadata.get("accepts")
    hints = hints if isinstance(hints, dict) else {}
    yield from (f"{key} = {json.dumps(value)}" for key, value in hints.items() if key in HINTS)
    if "body_parts" not in hints:
        yield "# body_parts = []           # BodyPartExamined that it was made for; empty reads all"
    yield ""
    yield "[runtime]"
    yield "timeout_s = 1800"
    for name in inputs_of(bundle):
        yield ""
        yield "[[inputs]]"
        yield f"name = {_text(name)}"


def _labels(bundle: Described, task: str) -> Iterator[str]:
    for number, label in enumerate(labels_of(bundle, task)):
        yield ""
        yield "[[labels]]"
        yield f"value = {label.value}"
        yield f"name = {_text(label.name)}"
        yield f"category = {_code(label.codes.category)}"
        yield f"type = {_code(label.codes.type)}" + ("" if label.codes.known else "  # TO CODE: find it in SNOMED CT")
        if label.codes.modifier is not None:
            yield f"modifier = {_code(label.codes.modifier)}"
        yield f"color = {list(COLORS[number % len(COLORS)])}"


def _unnamed(bundle: Described, task: str) -> tuple[dict[int, str], bool]:
    """Channels of a bundle that names none: a detector finds what it is named for, others are numbered."""
    if task == "detection":
        about = bundle.text("task") or bundle.folder.name
        found = re.sub(r"(?i)\b(ct|mri?|detection|detect(or|ing)?|of|in|the)\b", " ", about.replace("_", " "))
        return {0: " ".join(found.split()) or "finding"}, False
    named = bundle.config.get("labels") or bundle.config.get("label_names")
    if isinstance(named, dict) and all(isinstance(v, int) for v in named.values()):
        return {v: str(k) for k, v in named.items()}, 0 in named.values()
    count = str(bundle.output.get("num_channels"))
    many = int(count) if count.isdigit() else 2
    return {n: "background" if n == 0 and many > 1 else f"label {n}" for n in range(many)}, many > 1


def _renumbered(bundle: Described) -> dict[int, int]:
    """Values that an expression in the postprocessing gives to channels."""
    written = texts(bundle.config.get("postprocessing", {}))
    expressions = [text for text in written if text.startswith("$lambda") and "where" in text]
    return {int(m.group(1)): int(m.group(2)) for e in expressions for m in RENUMBERED.finditer(e)}


def _readable(name: str) -> str:
    text = " ".join(re.sub(r"[_]+", " ", name).split())
    return (text[:1].upper() + text[1:])[:64] or "Label"


def _code(code: Code) -> str:
    return f"[{_text(code.value)}, {_text(code.scheme)}, {_text(code.meaning)}]"


def _text(value: str) -> str:
    # A JSON string of printable characters is a TOML basic string, too.
    return json.dumps(" ".join(value.split()), ensure_ascii=False).replace("\x7f", "")
