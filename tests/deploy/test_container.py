"""Image and composition agree with each other, with the settings, and with what is in the repository."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from overread.observe.health import Health
from overread.observe.metrics import Metrics
from overread.settings import Observe, read_settings


def instructions(deploy: Path) -> list[tuple[str, str]]:
    """The Containerfile's instructions: (word, rest), continued lines joined."""
    text = (deploy / "container/Containerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in joined]


def composition(deploy: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((deploy / "container/compose.yaml").read_text("utf-8"))
    return read


def probe(deploy: Path) -> list[str]:
    (rest,) = [rest for word, rest in instructions(deploy) if word == "HEALTHCHECK"]
    command: list[str] = json.loads(rest.partition("CMD ")[2])
    return command


def test_image_runs_the_command_without_privileges(deploy: Path) -> None:
    words = instructions(deploy)
    assert [rest for word, rest in words if word == "USER"] == ["10001:10001"]
    assert ("CMD", '["run"]') in words
    (entry,) = [json.loads(rest) for word, rest in words if word == "ENTRYPOINT"]
    assert entry == ["/opt/overread/bin/overread", "--config", "/etc/overread/overread.toml"]
    assert len([1 for word, _ in words if word == "FROM"]) == 2


def test_what_the_image_copies_reaches_the_builder(deploy: Path) -> None:
    ignore = (deploy / "container/Containerfile.dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignore
    let_through = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        source
        for word, rest in instructions(deploy)
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == let_through


def test_health_check_asks_the_three_roles_and_notices_one_that_is_stuck(deploy: Path) -> None:
    """The very command of the image, with free ports in place of the fixed ones."""
    ports = (Observe.listen_port, Observe.watch_port, Observe.work_port)
    command = probe(deploy)
    assert str(ports) in command[-1]
    stuck: list[str] = []
    with ExitStack() as stack:
        free = []
        for _ in ports:
            health = Health(Metrics("0").registry, heartbeat=lambda: stuck, checks={})
            health.start()
            stack.callback(health.stop)
            free.append(health.port)
        script = command[-1].replace(str(ports), str(tuple(free)))
        for answer in (0, 1):
            done = subprocess.run(
                [sys.executable, *command[1:-1], script], capture_output=True, timeout=60, check=False
            )
            assert done.returncode == answer
            stuck.append("clock")


def test_settings_fit_the_composition(deploy: Path) -> None:
    """Every port and destination in the container's settings is one that the composition has."""
    settings = read_settings(deploy / "container/overread.toml")
    services = composition(deploy)["services"]
    observe = settings.observe
    assert (settings.receive.host, observe.host) == ("0.0.0.0", "0.0.0.0")
    assert f"{settings.receive.port}:{settings.receive.port}" in services["overread"]["ports"]
    targets = yaml.safe_load((deploy / "container/targets.yml").read_text("utf-8"))
    local = yaml.safe_load((deploy / "prometheus/targets.yml").read_text("utf-8"))
    for name, host in ((targets, "overread"), (local, "127.0.0.1")):
        assert {t["labels"]["role"]: t["targets"] for t in name} == {
            "listen": [f"{host}:{observe.listen_port}"],
            "watch": [f"{host}:{observe.watch_port}"],
            "work": [f"{host}:{observe.work_port}"],
        }
    (pacs,) = settings.deliver
    orthanc = json.loads((deploy / "container/orthanc.json").read_text("utf-8"))
    assert pacs.host in services
    assert (pacs.ae_title, pacs.port) == (orthanc["DicomAet"], orthanc["DicomPort"])
    assert orthanc["DicomModalities"]["overread"] == [settings.receive.ae_title, "overread", settings.receive.port]


def test_every_file_that_the_composition_mounts_is_there(deploy: Path) -> None:
    read = composition(deploy)
    for name, service in read["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (deploy / "container" / source).resolve().is_file(), (name, source)
            else:
                assert source in read["volumes"], (name, source)
    assert (deploy / "container" / read["services"]["overread"]["build"]["context"]).resolve() == deploy.parent
    assert (deploy.parent / read["services"]["overread"]["build"]["dockerfile"]).is_file()
    assert read["services"]["orthanc"]["profiles"] == ["try"]
    assert not [s for s in read["services"].values() if s.get("privileged") or s["image"].endswith("latest")][1:]
