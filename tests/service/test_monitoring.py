"""Dashboard and alerts name metrics that the service has, show all of them, and are accepted by Prometheus itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

pytest.importorskip("flower")
pytest.importorskip("httpx")
pytest.importorskip("yaml")

import httpx
import prometheus_client
import yaml  # type: ignore[import-untyped]
from fakes import OverlapScorer
from flower.events import get_prometheus_metrics  # type: ignore[import-untyped]
from gliclass_rerank_service import Settings, create_app
from prometheus_client.parser import text_string_to_metric_families
from serving import ROOT, free_port, running, wait_for

from gliclass_rerank.scorers.independent.cache import PassageCache
from gliclass_rerank.types import FloatArray

FOLDER = ROOT / "service" / "deploy" / "monitoring"
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
CONFIGS = yaml.safe_load((ROOT / "service" / "compose.yml").read_text("utf-8"))["configs"]
SCALED = yaml.safe_load_all((ROOT / "service/deploy/kubernetes/autoscaled/scaled_objects.yml").read_text("utf-8"))
METRIC = re.compile(r"\b(?:te|gliclass_rerank|flower)_[a-z_]+\b(?!=)")
PROMETHEUS = "is not on PATH; it is in Debian's package prometheus"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason=f"promtool {PROMETHEUS}")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason=f"prometheus {PROMETHEUS}")


def panels() -> Iterator[tuple[str, str]]:
    """Title and expression of each line that the dashboard draws."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def alerts() -> Iterator[tuple[str, str]]:
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def queries() -> Iterator[str]:
    """Of the autoscaler."""
    for one in SCALED:
        yield from (trigger["metadata"]["query"] for trigger in one["spec"]["triggers"] if trigger["type"] != "redis")


class CachingScorer(OverlapScorer):
    """With the metrics of a passage cache."""

    passage_cache = PassageCache[FloatArray](1000)


def call(client: httpx.Client, url: str) -> None:
    """What makes each metric count: one text and several, an empty request, a wrong path, a job and its result."""
    for documents in (["a red apple", "a secret door"], ["an apple"], []):
        client.post(f"{url}/v2/rerank", json={"query": "red apple", "documents": documents})
    client.post(f"{url}/nothing")
    job = client.post(f"{url}/jobs/rerank", json={"query": "a", "documents": ["b"]}).json()
    client.get(f"{url}/result/{job['task_id']}")


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """What the service exports after some requests: names of samples by the name of their metric."""
    with running(create_app(CachingScorer(), Settings())) as url, httpx.Client() as client:
        call(client, url)
        families = text_string_to_metric_families(client.get(f"{url}/metrics").text)
        return {one.name: {sample.name for sample in one.samples} for one in families if "_created" not in one.name}


def flowers() -> set[str]:
    get_prometheus_metrics()  # registers them
    names = {family.name for family in prometheus_client.REGISTRY.collect() if family.name.startswith("flower_")}
    return {f"{name}{end}" for name in names for end in ("", "_total", "_bucket", "_sum", "_count")}


def test_dashboard_and_alerts_name_metrics_that_there_are(exported: dict[str, set[str]]) -> None:
    there = flowers().union(*exported.values())
    for expression in [*(one for _, one in panels()), *(one for _, one in alerts()), *queries()]:
        named = set(METRIC.findall(expression))
        assert named, expression
        assert named <= there, expression


def test_the_dashboard_shows_every_metric(exported: dict[str, set[str]]) -> None:
    shown = {name for _, expression in panels() for name in METRIC.findall(expression)}
    assert len(exported) > 10
    assert [name for name, samples in exported.items() if not samples & shown] == []


def test_the_dashboard_is_one_that_grafana_can_draw() -> None:
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]
    drawn = DASHBOARD["panels"]
    assert len({panel["id"] for panel in drawn}) == len(drawn)
    for panel in drawn:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({one["refId"] for one in panel.get("targets", [])}) == len(panel.get("targets", []))
    for one, other in combinations([panel["gridPos"] for panel in drawn], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_compose_gives_grafana_the_dashboard_and_its_source() -> None:
    source = yaml.safe_load(CONFIGS["datasource"]["content"])["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    provider = yaml.safe_load(CONFIGS["dashboards"]["content"])["providers"][0]
    grafana = yaml.safe_load((ROOT / "service" / "compose.yml").read_text("utf-8"))["services"]["grafana"]
    target = next(one["target"] for one in grafana["configs"] if one["source"] == "dashboard")
    assert str(PurePosixPath(target).parent) == provider["options"]["path"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == target


def test_the_bound_of_the_queue_is_that_of_the_settings() -> None:
    expression = dict(alerts())["GliclassRerankQueueNearBound"]
    assert expression.endswith(f"> 0.8 * {Settings.model_fields['max_queue_tokens'].default}")


@needs_promtool
def test_alerts_come_when_they_should() -> None:
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        ended = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    tested = (FOLDER / "alerts.test.yml").read_text("utf-8")
    assert all(name in tested for name, _ in alerts())


def test_the_operator_gets_the_same_alerts() -> None:
    """By the command of the documentation, less what sends them to a cluster."""
    page = (ROOT / "docs" / "deployment.md").read_text("utf-8")
    command = re.search(r"^\{\n  printf .*?^\}", page, re.MULTILINE | re.DOTALL)
    assert command is not None
    printed = subprocess.run(["bash", "-c", command[0]], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    rule = yaml.safe_load(printed)
    assert (rule["kind"], rule["apiVersion"]) == ("PrometheusRule", "monitoring.coreos.com/v1")
    assert rule["spec"] == ALERTS


@pytest.mark.slow
@needs_prometheus
def test_prometheus_draws_every_line_from_a_service_that_runs(tmp_path: Path) -> None:
    """Of ours; Flower's need a worker. With the configuration of compose, but for addresses and how often it looks."""
    with running(create_app(CachingScorer(), Settings())) as url, httpx.Client() as client:
        config = CONFIGS["prometheus"]["content"].replace("15s", "1s").replace("service:8000", url[7:])
        (tmp_path / "prometheus.yml").write_text(config, "utf-8")
        shutil.copy(FOLDER / "alerts.yml", tmp_path)

        def all_drawn() -> bool:
            call(client, url)
            return not missing(client, there)

        with prometheus(tmp_path) as there:
            wait_for(all_drawn)
            rules = client.get(f"{there}/api/v1/rules").json()["data"]["groups"]
            assert [rule["health"] for group in rules for rule in group["rules"]] == ["ok"] * len(list(alerts()))


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """Prometheus with the configuration in a folder, ready: its URL."""
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log)
    try:
        wait_for(lambda: started.poll() is not None or answers(f"http://{address}/-/ready"))
        assert started.poll() is None, (folder / "log").read_text("utf-8")
        yield f"http://{address}"
    finally:
        started.terminate()
        started.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def missing(client: httpx.Client, url: str) -> list[str]:
    """Lines of the dashboard that Prometheus cannot draw yet."""
    lines = []
    for title, expression in panels():
        asked = expression.replace("$__rate_interval", "10s").replace("$instance", ".*")
        answer = client.get(f"{url}/api/v1/query", params={"query": asked}).json()
        assert answer["status"] == "success", (title, answer)
        if not answer["data"]["result"] and "flower" not in expression:
            lines.append(title)
    return lines
