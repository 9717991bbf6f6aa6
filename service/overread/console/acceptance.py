"""What an acceptance test has seen, in words for the terminal and as a page that can be signed and filed."""

from __future__ import annotations

import base64
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape

from overread import __version__

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; }
td, th { border-bottom: 1px solid #ccc; padding: .45rem .6rem; text-align: left; vertical-align: top; }
.proven { color: #14692f; font-weight: 600; } .failed { color: #a31515; font-weight: 600; }
.not-proven { color: #8a5a00; font-weight: 600; } img { max-width: 100%; } .sign td { height: 2.5rem; }
@media print { body { margin: 0; } }
"""


class Verdict(StrEnum):
    """What is known of one thing."""

    PROVEN = "proven"
    NOT_PROVEN = "not proven"  # nothing is wrong, and nothing shows that it is right
    FAILED = "failed"


@dataclass(frozen=True)
class Step:
    """One thing that was looked at, at one place."""

    place: str
    what: str
    verdict: Verdict
    said: str


@dataclass
class Acceptance:
    """All steps, and for each place whose segmentation was read back a picture (PNG)."""

    steps: list[Step] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether something was proven and nothing failed."""
        verdicts = {step.verdict for step in self.steps}
        return Verdict.PROVEN in verdicts and Verdict.FAILED not in verdicts

    @property
    def summary(self) -> str:
        """In one line."""
        told = [f"{sum(s.verdict is v for s in self.steps)} {v.value}" for v in Verdict]
        return f"{'passed' if self.passed else 'NOT passed'}: {', '.join(told)}"


def page(seen: Acceptance, made_at: str) -> str:
    """One HTML page that needs nothing beside it; ``made_at`` is when the test was made, in words."""
    return "\n".join(_page(seen, made_at)) + "\n"


def _page(seen: Acceptance, made_at: str) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>overread acceptance test</title>'
    yield f"<style>{STYLE}</style></head><body>"
    yield f"<h1>overread acceptance test: {escape(seen.summary)}</h1>"
    yield f"<p>{escape(made_at)}, overread {escape(__version__)} on {escape(platform.node())}. The study is generated"
    yield "and stands for no patient; it can be deleted from the PACS: patient ID OVERREAD-CANARY.</p>"
    for place in dict.fromkeys(step.place for step in seen.steps):
        yield f"<h2>{escape(place)}</h2><table><tr><th>what</th><th>verdict</th><th>seen</th></tr>"
        for step in (s for s in seen.steps if s.place == place):
            verdict = f'<td class="{step.verdict.value.replace(" ", "-")}">{step.verdict.value}</td>'
            yield f"<tr><td>{escape(step.what)}</td>{verdict}<td>{escape(step.said)}</td></tr>"
        yield "</table>"
        if place in seen.pictures:
            data = base64.b64encode(seen.pictures[place]).decode()
            yield f'<p><img alt="segmentation on images, as read back" src="data:image/png;base64,{data}"></p>'
    yield '<table class="sign"><tr><td>Date</td><td></td><td>Name, signature</td><td></td></tr></table></body></html>'
