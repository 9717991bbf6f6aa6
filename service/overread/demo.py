"""``overread demo``: a hospital in a box, the service in its midst, and what came of one study, step by step."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overread import wiring
from overread.console.words import explain
from overread.domain.card import Card
from overread.domain.errors import ConfigError, Refused
from overread.domain.job import ENDED, JobState
from overread.domain.peer import Peer
from overread.domain.result import DeliveryState
from overread.ledger import Ledger, views
from overread.ledger.views import JobStory, StudyStory
from overread.settings import Settings, read_settings
from overread.simulate.bench import dicom_files, write_phantom
from overread.simulate.pacs import Pacs
from overread.simulate.phantom import LABELS
from overread.simulate.scanner import send
from overread.simulate.study import truth_of
from overread.simulate.verdict import Overlay, dice, montage, read_overlay
from overread.simulate.words import measurements
from overread.spool.header import read_file

STARTING_S = 60.0
PATIENCE_S = 1800.0
MARKER = "made by overread demo"

CONFIG = """# {marker}
data = "data"
models = [{models}]

[receive]
port = {dicom}

[assemble]
quiet_s = 2
quiet_by_modality_s = {{}}

[[deliver]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
results = ["seg", "sr"]

[observe]
listen_port = {listen}
watch_port = {watch}
work_port = {work}
log = "text"
"""


def run(folder: Path, study: Path | None, seed: int) -> int:
    """Show one study's way; 0 only when the results reached the PACS and the Dice is above the model's floor."""
    began = time.monotonic()
    files = dicom_files(study) if study else []
    _fresh(folder)
    with Pacs(folder / "pacs") as pacs:
        config = _write_config(folder, pacs.port)
        settings = read_settings(config)
        service = _start(config, folder / "service.log")
        try:
            _wait_until_listening(settings, service)
            _say("ready", f"overread listens on port {settings.receive.port}, the PACS on {pacs.port}")
            code = _show(settings, folder, files, seed)
        finally:
            service.terminate()
            service.wait(30)
    _say("done", f"{time.monotonic() - began:.0f} s in all; everything is in {folder.resolve()}")
    return code


def _show(settings: Settings, folder: Path, files: Sequence[Path], seed: int) -> int:
    phantom = not files
    if phantom:
        files = write_phantom(folder / "study", seed, uid_salt=str(time.time_ns()))
        _say("phantom", f"a chest CT was generated: {len(files)} images, seed {seed}")
    else:
        _say("study", f"{len(files)} DICOM files")
    peer = Peer(settings.receive.ae_title, settings.receive.host, settings.receive.port)
    sent = send(files, peer, calling_ae="SCANNER", progress=lambda done, total: _bar("sent", done / total))
    _end_bar()
    _say("received", f"{sent.stored} images acknowledged in {sent.seconds:.1f} s, {len(sent.failed)} not")
    books = wiring.ledger(settings)
    uids = _study_uids(files, {failed.path for failed in sent.failed})
    if not uids:
        raise ConfigError("none of the images was taken; service.log in the demo's folder says why")
    stories = [_Follower(books, uid).follow() for uid in uids]
    books.close()
    return max(_summary(settings, folder, files, story, phantom) for story in stories)


def _study_uids(files: Sequence[Path], refused: set[Path]) -> list[str]:
    uids = set()
    for path in files:
        if path not in refused:
            with contextlib.suppress(Refused):
                uids.add(read_file(path).study_uid)
    return sorted(uids)


@dataclass
class _Follower:
    """Follows one study in the ledger and says each step once."""

    books: Ledger
    study_uid: str
    told: set[str] = field(default_factory=set)

    def follow(self) -> StudyStory:
        """Until every job of the study has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            story = views.story(self.books, self.study_uid)
            if story is not None and self._look(story):
                return story
            time.sleep(0.2)
        raise ConfigError(f"the study did not end within {PATIENCE_S:.0f} s; see service.log in the demo's folder")

    def _look(self, story: StudyStory) -> bool:
        study = story.study
        if study.state != "COMPLETE":
            return False
        self._once("complete", f"{study.instances} images, quiet for long enough")
        if study.routed_revision < study.revision:
            return False
        for d in story.decisions:
            where = f"{d.series_title} to {d.model}" if d.series_uid else d.model
            self._once("routed", f"{where}: {'yes' if d.chosen else 'no'}, {d.reason}")
        for job in story.jobs:
            self._job(job)
        return all(job.row.state in ENDED for job in story.jobs)

    def _job(self, job: JobStory) -> None:
        if job.row.state == JobState.RUNNING:
            _bar(f"{job.row.model} reads", job.row.progress)
            return
        if job.results:
            _end_bar()
            made = " and ".join(r.kind.upper() for r in job.results)
            self._once("encoded", f"{made} made and checked against the source")
        if job.deliveries and all(d.sent_at for d in job.deliveries):
            self._once("delivered", f"{len(job.deliveries)} objects to {job.deliveries[0].destination}")
        if job.deliveries and all(d.state == DeliveryState.VERIFIED for d in job.deliveries):
            self._once("verified", f"{job.deliveries[0].destination} answers for them by C-FIND")
        if job.row.state in ENDED:
            self._once("job", f"{job.row.model} {job.row.state}: {job.row.reason}")

    def _once(self, step: str, text: str) -> None:
        if step + text not in self.told:
            self.told.add(step + text)
            _say(step, text)


def _summary(settings: Settings, folder: Path, files: Sequence[Path], story: StudyStory, phantom: bool) -> int:
    cards = {c.name: c for c in wiring.cards(settings)}
    arrived = {path.stem: path for path in (folder / "pacs").rglob("*.dcm")}
    done = [j for j in story.jobs if j.row.state == JobState.COMPLETED]
    print()
    if not done or any(r.sop_instance_uid not in arrived for j in done for r in j.results):
        print("\n".join(explain(story)))
        return 1
    good = True
    for job in done:
        overlay = _show_results(job, arrived, files)
        good &= _show_overlay(overlay, cards[job.row.model], folder, phantom) if overlay else not phantom
    _keep_metrics(settings, folder / "metrics.txt")
    return 0 if good else 1


def _keep_metrics(settings: Settings, copy: Path) -> None:
    o, pages = settings.observe, []
    for role, port in (("listen", o.listen_port), ("watch", o.watch_port), ("work", o.work_port)):
        url = f"http://{o.host}:{port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as page:  # our own page on our own address
            pages.append(f"# {role}: {url}\n{page.read().decode()}")
        print(f"  metrics   {url}  ({role}, while the service runs)")
    copy.write_text("\n".join(pages), "utf-8")
    print(f"  metrics   {copy}  (a copy of all three)")


def _show_results(job: JobStory, arrived: dict[str, Path], files: Sequence[Path]) -> Overlay | None:
    overlay = None
    for result in job.results:
        path = arrived[result.sop_instance_uid]
        print(f"  {result.kind:<8}  {path}")
        if result.kind == "sr":
            for line in measurements(path):
                print(f"  found     {line}")
        if result.kind == "seg":
            overlay = read_overlay(path, files)
    return overlay


def _show_overlay(overlay: Overlay, card: Card, folder: Path, phantom: bool) -> bool:
    picture = folder / f"overlay-{card.name}.png"
    montage(overlay, {label.name: label.color for label in card.labels}, picture)
    print(f"  picture   {picture}")
    if not phantom:
        return True
    good = True
    for name, value in dice(overlay, truth_of(folder / "study").labels, LABELS).items():
        floor = card.dice_floor.get(name, 0.0)
        good &= value >= floor
        verdict = "≥" if value >= floor else "is BELOW"
        print(f"  Dice      {name}: {value:.3f} {verdict} {floor:.2f}, the model's floor")
    return good


def _fresh(folder: Path) -> None:
    config = folder / "overread.toml"
    if folder.exists() and any(folder.iterdir()):
        if not (config.is_file() and MARKER in config.read_text("utf-8")):
            raise ConfigError(f"{folder} is not empty and not of an earlier demo; name another with --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _write_config(folder: Path, pacs_port: int) -> Path:
    dicom, listen, watch, work = _free_ports(4)
    models = ", ".join(f'"{Path(m).resolve()}"' for m in _models())
    path = folder / "overread.toml"
    text = CONFIG.format(
        marker=MARKER, models=models, dicom=dicom, pacs=pacs_port, listen=listen, watch=watch, work=work
    )
    path.write_text(text, "utf-8")
    return path


def _models() -> Sequence[str]:
    for root in (Path("models"), Path(__file__).resolve().parents[2] / "models"):
        if any(root.glob("*/card.toml")):
            return [str(root)]
    raise ConfigError("no models folder is here; run the demo from the project's folder")


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in held]
    for s in held:
        s.close()
    return ports


def _start(config: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "overread", "--config", str(config), "run"]
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def _wait_until_listening(settings: Settings, service: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    while time.monotonic() - began < STARTING_S:
        if service.poll() is not None:
            break
        try:
            socket.create_connection((settings.receive.host, settings.receive.port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise ConfigError("the service did not start; see service.log in the demo's folder")


_drawn: list[str] = []


def _bar(what: str, fraction: float) -> None:
    filled = round(24 * fraction)
    text = f"{what:<10} [{'█' * filled}{'·' * (24 - filled)}] {fraction:4.0%}"
    if sys.stdout.isatty():
        print(f"\r{text}", end="", flush=True)
        _drawn[:] = [text]
    elif int(fraction * 4) != int(_shown.get(what, -1.0) * 4):
        print(text, flush=True)
    _shown[what] = fraction


_shown: dict[str, float] = {}


def _end_bar() -> None:
    if _drawn:
        _drawn.clear()
        print(flush=True)


def _say(step: str, text: str) -> None:
    _end_bar()
    print(f"{step:<10} {text}", flush=True)


