"""Alerts and dashboard speak of metrics that exist, and a real Prometheus understands every query."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from overread.domain import events
from overread.domain.backlog import Backlog
from overread.domain.device import Device
from overread.domain.warm import Warm
from overread.observe.health import Health
from overread.observe.metrics import Metrics
from overread.ports import Herald

ROLES = ("listen", "watch", "work")
FROM_PROMETHEUS = {"up", "ALERTS"}
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def metrics_of(role: str, tmp_path: Path) -> Metrics:
    metrics = Metrics("0.1.0", models=["ct_chest"], destinations=["pacs"])
    if role == "watch":
        metrics.watch_backlog(lambda: Backlog(studies={"RECEIVING": 1}, oldest_job_s=12.0, oldest_delivery_s=3.0))
        metrics.watch_disk(tmp_path)
    if role == "work":
        gpu = Device("cuda:0", 0.9, 1 << 30, 1 << 34, 60.0, 200.0)
        metrics.watch_warm(lambda: [Warm("ct_chest", "cuda:0", 1 << 30, 1 << 30, True)], lambda: [gpu])
    return metrics


def exported(tmp_path: Path, day: list[events.Event]) -> set[str]:
    """Names of all metrics of the three roles after a day."""
    names: set[str] = set()
    for role in ROLES:
        metrics = metrics_of(role, tmp_path)
        for event in day:
            metrics(event)
        names |= {sample.name for family in metrics.registry.collect() for sample in family.samples}
    return names


def names_in(expression: str) -> set[str]:
    """Metric names in a PromQL expression: words before ``{``, ``[`` or the end, once labels and functions are gone."""
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\b(by|on|without|ignoring)\s*\([^)]*\)", "", expression)
    return set(re.findall(r"\b((?:overread|process)_\w+|up|ALERTS)\b", bare))


def rules_of(deploy: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((deploy / "prometheus/alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_of(deploy: Path) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((deploy / "grafana/overread.json").read_text("utf-8"))
    return dashboard


def queries_of(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    return [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p.get("targets", [])]


def substituted(expression: str) -> str:
    for variable, value in {
        "$__rate_interval": "1m",
        "$__range": "1h",
        "$model": ".*",
        "$destination": ".*",
    }.items():
        expression = expression.replace(variable, value)
    return expression


def test_promtool_accepts_configuration_and_rules(program: Any, deploy: Path) -> None:
    command = [program("promtool"), "check", "config", str(deploy / "prometheus/prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules_of(deploy))} rules found" in done.stdout + done.stderr


def test_every_alert_fires_and_stays_quiet_as_its_test_says(program: Any, deploy: Path) -> None:
    path = deploy / "prometheus/alerts_test.yml"
    command = [program("promtool"), "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = [r for t in yaml.safe_load(path.read_text("utf-8"))["tests"] for r in t["alert_rule_test"]]
    fired = {c["alertname"] for c in cases if c["exp_alerts"]}
    quiet = {c["alertname"] for c in cases if not c["exp_alerts"]}
    assert fired == quiet == {rule["alert"] for rule in rules_of(deploy)}


def test_promtool_finds_nothing_to_say_about_the_metrics(program: Any, tmp_path: Path, day: list[events.Event]) -> None:
    for role in ROLES:
        metrics = metrics_of(role, tmp_path)
        for event in day:
            metrics(event)
        with Served(metrics) as port:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        command = [program("promtool"), "check", "metrics"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_alerts_name_metrics_that_exist_and_remedies_that_are_written(
    deploy: Path, tmp_path: Path, day: list[events.Event]
) -> None:
    known = exported(tmp_path, day) | FROM_PROMETHEUS
    headings = re.findall(r"^#+ (.+)$", (deploy / "README.md").read_text("utf-8"), re.MULTILINE)
    anchors = {heading.strip().lower().replace(" ", "-") for heading in headings}
    for rule in rules_of(deploy):
        assert names_in(rule["expr"]) <= known, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor in anchors) == ("deploy/README.md", True), rule["alert"]


def test_dashboard_names_metrics_that_exist_and_leaves_none_out(
    deploy: Path, tmp_path: Path, day: list[events.Event]
) -> None:
    known = exported(tmp_path, day)
    shown: set[str] = set()
    for title, expression in queries_of(dashboard_of(deploy)):
        names = names_in(expression)
        assert names, title
        assert names <= known | FROM_PROMETHEUS, title
        shown |= {SUFFIXES.sub("", name) for name in names}
    assert shown >= {SUFFIXES.sub("", name) for name in known if name.startswith("overread_")}


def test_dashboard_is_well_formed(deploy: Path) -> None:
    """Ids differ, panels lie on the grid without overlap, and no data source is fixed."""
    panels = dashboard_of(deploy)["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] in range(25 - at["w"])
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not mine & cells, panel["title"]
        cells |= mine
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"] and panel["targets"]


class Served:
    """Serves metrics on a free port while the block runs."""

    def __init__(self, metrics: Metrics) -> None:
        self._health = Health(metrics.registry, heartbeat=list, checks={})

    def __enter__(self) -> int:
        self._health.start()
        return self._health.port

    def __exit__(self, *_: object) -> None:
        self._health.stop()


@pytest.fixture
def prometheus(program: Any, deploy: Path, tmp_path: Path, day: list[events.Event]) -> Iterator[httpx.Client]:
    """The shipped configuration in a real Prometheus, with one second between scrapes, over three live roles."""
    with ExitStack() as stack:
        roles = {role: metrics_of(role, tmp_path) for role in ROLES}
        ports = {role: stack.enter_context(Served(metrics)) for role, metrics in roles.items()}
        folder = tmp_path / "prometheus"
        folder.mkdir()
        targets = [{"targets": [f"127.0.0.1:{port}"], "labels": {"role": role}} for role, port in ports.items()]
        (folder / "targets.yml").write_text(yaml.safe_dump(targets))
        (folder / "alerts.yml").write_text((deploy / "prometheus/alerts.yml").read_text("utf-8"))
        configuration = (deploy / "prometheus/prometheus.yml").read_text("utf-8")
        configuration = re.sub(r"(scrape_interval|evaluation_interval|scrape_timeout): \d+s", r"\1: 1s", configuration)
        (folder / "prometheus.yml").write_text(configuration)
        process, port = start(program("prometheus"), folder)
        try:
            client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False))
            wait_for_scrapes(client, process, folder, list(roles.values()), day)
            yield client
        finally:
            process.terminate()
            process.wait(20)


def start(binary: str, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=log,
        )
    return process, port


def wait_for_scrapes(
    client: httpx.Client, process: subprocess.Popen[bytes], folder: Path, heralds: list[Herald], day: list[events.Event]
) -> None:
    """Lets the day pass again and again until every role has been scraped four times."""
    query = 'min(count_over_time(up{job="overread"}[1m])) * (count(up{job="overread"} == 1) == bool 3)'
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for herald in heralds:
            for event in day:
                herald(event)
        try:
            result = client.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
        except (httpx.TransportError, json.JSONDecodeError):
            result = []
        if result and float(result[0]["value"][1]) >= 4:
            return
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.3)
    pytest.fail("no scrapes: " + (folder / "log").read_text())


def test_a_real_prometheus_answers_every_query(prometheus: httpx.Client, deploy: Path) -> None:
    """All panels, alerts and template variables: understood, and every panel has data after a day of events."""
    dashboard = dashboard_of(deploy)
    for title, expression in queries_of(dashboard):
        answer = prometheus.get("/api/v1/query", params={"query": substituted(expression)}).json()
        assert answer["status"] == "success", (title, answer)
        values = [sample["value"][1] for sample in answer["data"]["result"]]
        assert values, (title, expression)
        assert any(value != "NaN" for value in values), (title, expression)
    for variable in dashboard["templating"]["list"][1:]:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
        answer = prometheus.get(f"/api/v1/label/{label}/values", params={"match[]": metric}).json()
        assert answer["data"], variable["name"]
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    states = {rule["name"]: (rule["health"], rule.get("lastError", "")) for g in groups for rule in g["rules"]}
    assert set(states) == {rule["alert"] for rule in rules_of(deploy)}
    assert {state for state in states.values()} == {("ok", "")}, states
