"""The summary of a reading on one page: what was found, where, how much, by whom; and that it is no diagnosis."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw

from overread.domain.codes import Code
from overread.domain.findings import Measurement
from overread.encode.display import BLACK, DARK, GREY, HIGHLIGHT, NOTICE, WHITE, Colour, Drawn, font, shown
from overread.encode.report_tree import missing
from overread.ports import Read

PAGE = (1240, 1754)  # A4 at 150 dots per inch
MARGIN, LINE, PANEL = 60, 30, 420
FOOT_LINES, FOOT_LETTERS = 2, 100
_UNITS = {"[hnsf'U]": "HU", "1": "", "{ratio}": ""}
_MOST_NUMBERS = 3

Row = tuple[Colour | None, str, str]


def page(read: Read, pictures: Sequence[Drawn]) -> Image.Image:
    """The page, white, with at most four of ``pictures`` and as many rows as it holds; what does not fit is counted."""
    canvas = Image.new("RGB", PAGE, WHITE)
    pen = ImageDraw.Draw(canvas)
    y = _heading(pen, read)
    for n, drawn in enumerate(pictures[:4]):
        small = drawn.picture.copy()
        small.thumbnail((540, 400))
        corner = (MARGIN + n % 2 * 580, y + n // 2 * 440)
        canvas.paste(small, corner)
        pen.text((corner[0], corner[1] + small.height + 4), _where(read, drawn.k), fill=BLACK, font=font(18))
    y += (min(len(pictures), 4) + 1) // 2 * 440
    bottom = PAGE[1] - (2 + FOOT_LINES) * LINE
    _table(pen, list(rows(read)), (MARGIN, y, PAGE[0] - MARGIN, bottom), BLACK)
    for n, line in enumerate(textwrap.wrap(f"{NOTICE}. {read.card.purpose}", FOOT_LETTERS)[:FOOT_LINES]):
        pen.text((MARGIN, PAGE[1] - (1 + FOOT_LINES - n) * LINE), line, fill=BLACK, font=font(20))
    return canvas


def panel(read: Read, drawn: Drawn) -> Image.Image:
    """``drawn`` beside a panel that says what is on it."""
    inside = {segment.value for segment in shown(read, drawn.k)}
    width, height = drawn.picture.width + PANEL, max(drawn.picture.height, 480)
    canvas = Image.new("RGB", (width, height), BLACK)
    canvas.paste(drawn.picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    x = drawn.picture.width + 20
    pen.text((x, 16), NOTICE, fill=HIGHLIGHT, font=font(24))
    pen.text((x, 52), f"{read.card.title} {read.card.version}"[:40], fill=WHITE, font=font(18))
    pen.text((x, 78), _where(read, drawn.k), fill=GREY, font=font(18))
    _table(pen, list(rows(read, inside)), (x, 116, width - 10, height), WHITE, size=16)
    return canvas


def rows(read: Read, only: set[int] | None = None) -> Iterator[Row]:
    """Colour, name and numbers of each finding; of the segments, of those ``only``."""
    found = read.findings
    for segment in found.segments:
        if only is None or segment.value in only:
            yield segment.label.color, segment.title, numbers(segment.measurements)
    for box in found.detections:
        yield box.label.color, box.title, f"{box.score:.0%}"
    for judged in found.judgements:
        yield judged.label.color, judged.label.name, f"{judged.probability:.0%}" + (" (yes)" if judged.chosen else "")
    if only is None:
        yield from ((None, label.name, "not found") for label in missing(read))


def numbers(measurements: Sequence[Measurement]) -> str:
    """The first few numbers, as people write them."""
    return ", ".join(_number(m) for m in measurements[:_MOST_NUMBERS])


def _number(m: Measurement) -> str:
    unit = _UNITS.get(m.unit.value, m.unit.value)
    what = "" if m.unit.value == "ml" else f"{_short(m.derivation or m.name)} "
    return f"{what}{m.value:.4g} {unit}".strip()


def _short(name: Code) -> str:
    return {"Standard Deviation": "SD"}.get(name.meaning, name.meaning).lower().replace("sd", "SD")


def _where(read: Read, k: int) -> str:
    frame = read.volume.sources[k][1]
    if len(read.volume.voxels) == 1:
        return "the image"
    return f"frame {frame}" if frame else f"slice {k + 1} of {len(read.volume.voxels)}"


def _images(read: Read) -> str:
    count = len(read.volume.voxels)
    return "1 image" if count == 1 else f"{count} {'frames' if read.volume.sources[0][1] else 'images'}"


def _heading(pen: ImageDraw.ImageDraw, read: Read) -> int:
    """The page's head; where the rest begins."""
    pen.text((MARGIN, MARGIN), NOTICE, fill=(170, 0, 0), font=font(40))
    made_by = f"{read.card.title} {read.card.version}, {read.card.manufacturer}"
    pen.text((MARGIN, MARGIN + 56), made_by[:90], fill=BLACK, font=font(26))
    what = f"{read.made_at[:10]}, {_images(read)}; the patient is named in the object's header"
    pen.text((MARGIN, MARGIN + 92), what, fill=DARK, font=font(20))
    return MARGIN + 140


def _table(
    pen: ImageDraw.ImageDraw, told: list[Row], box: tuple[int, int, int, int], ink: Colour, size: int = 20
) -> None:
    left, y, right, bottom = box
    room = max((bottom - y) // LINE, 1)
    if not told:
        told = [(None, "Nothing found", "")]
    if len(told) > room:
        told = [*told[: room - 1], (None, f"and {len(told) - room + 1} more, in the report", "")]
    half = left + 34 + (right - left - 34) * 2 // 5
    for colour, name, value in told:
        if colour is not None:
            pen.rectangle((left, y + 4, left + 18, y + 22), fill=colour)
        pen.text((left + 28, y), _fitting(pen, name, half - left - 34, size), fill=ink, font=font(size))
        pen.text((half, y), _fitting(pen, value, right - half, size), fill=ink, font=font(size))
        y += LINE


def _fitting(pen: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    if pen.textlength(text, font=font(size)) <= width:
        return text
    while text and pen.textlength(text + "…", font=font(size)) > width:
        text = text[:-1]
    return text + "…"
