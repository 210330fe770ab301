"""The Ray Serve configurations are what Ray takes, and what is served is the service."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'gliclass-rerank[ray]'")
pytest.importorskip("httpx")
pytest.importorskip("kubernetes_validate")
pytest.importorskip("yaml")

import httpx
import kubernetes_validate  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]
from conftest import needs_mini
from gliclass_rerank_service.ray_app import build
from gliclass_rerank_service.settings import Settings
from packaging.requirements import Requirement
from pydantic import BaseModel
from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema
from serving import ROOT, free_port, wait_for

from gliclass_rerank import Reranker

FOLDER = ROOT / "service" / "deploy" / "ray"
SERVE: dict[str, Any] = yaml.safe_load((FOLDER / "serve.yml").read_text("utf-8"))
RAY_SERVICE: dict[str, Any] = yaml.safe_load((FOLDER / "rayservice.yml").read_text("utf-8"))["spec"]
ON_KUBERNETES: dict[str, Any] = yaml.safe_load(RAY_SERVICE["serveConfigV2"])
CLUSTER = RAY_SERVICE["rayClusterConfig"]
PATIENCE = 240.0  # seconds


both = pytest.mark.parametrize("config", [SERVE, ON_KUBERNETES], ids=["serve", "rayservice"])


def unknown(given: dict[str, Any], model: type[BaseModel]) -> set[str]:
    return given.keys() - model.model_fields.keys()


@both
def test_ray_knows_every_key(config: dict[str, Any]) -> None:
    """It would pass over those that it does not."""
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert unknown(config, ServeDeploySchema) == unknown(config["http_options"], HTTPOptionsSchema) == set()
    assert unknown(config["applications"][0], ServeApplicationSchema) == set()
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert application.route_prefix == "/"


@both
def test_the_service_takes_the_arguments(config: dict[str, Any]) -> None:
    arguments = config["applications"][0]["args"]
    assert arguments.keys() <= Settings.model_fields.keys()
    build(arguments)
    settings = Settings(**arguments)
    assert settings.ray_max_replicas > settings.ray_min_replicas
    assert config["http_options"]["request_timeout_s"] > settings.timeout_seconds


def test_who_listens_to_others_asks_for_a_key() -> None:
    assert SERVE["http_options"]["host"] == "127.0.0.1"
    assert ON_KUBERNETES["http_options"]["host"] == "0.0.0.0"
    key_file = ON_KUBERNETES["applications"][0]["args"]["api_key_file"]
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]):  # the ingress may be on any of them
        (container,) = group["template"]["spec"]["containers"]
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == [str(Path(key_file).parent)]


def test_the_pods_of_the_cluster_are_valid_and_fit_a_replica() -> None:
    arguments = ON_KUBERNETES["applications"][0]["args"]
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]):
        pods = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "ray"}, "template": group["template"]}
        kubernetes_validate.validate(pods, kubernetes_validate.latest_version(), strict=True)
        assert group["template"]["spec"]["enableServiceLinks"] is False
    (workers,) = CLUSTER["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["cpu"] == str(arguments["threads"])
    assert workers["minReplicas"] == arguments["ray_min_replicas"]
    assert workers["maxReplicas"] == arguments["ray_max_replicas"]


def test_the_image_has_the_ray_of_the_cluster_and_files_that_are_there() -> None:
    dockerfile = (FOLDER / "Dockerfile").read_text("utf-8")
    base = re.search(r"^FROM rayproject/ray:([\d.]+)-py3\d+$", dockerfile, re.MULTILINE)
    assert base is not None
    assert base[1] == CLUSTER["rayVersion"]
    wanted = re.search(r'"(ray\[serve\][^"]*)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert wanted is not None
    assert Requirement(wanted[1]).specifier.contains(base[1])
    copied = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", dockerfile, re.MULTILINE)
    assert all((ROOT / source).exists() for line in copied for source in line.split())


@needs_mini
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
def test_serve_run_serves_what_the_file_says(tmp_path: Path) -> None:
    """On another port, and with one replica."""
    port = free_port()
    config = {**SERVE, "http_options": {**SERVE["http_options"], "port": port}}
    config["applications"] = [{**SERVE["applications"][0], "args": {"model": "mini", "ray_max_replicas": 1}}]
    (tmp_path / "serve.yml").write_text(yaml.safe_dump(config), "utf-8")
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("service", "integrations", "src"))
    ray = {"RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120"}
    environment = {**os.environ, "PYTHONPATH": paths, **ray}
    command = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", "run", str(tmp_path / "serve.yml")]
    with (tmp_path / "log").open("wb") as log:
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background inherits deafness
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path, preexec_fn=heeding)
    try:
        wait_for(lambda: started.poll() is not None or is_ready(port), PATIENCE)
        assert started.poll() is None, (tmp_path / "log").read_text("utf-8", "replace")
        passages = ["The sea is salt.", "Berlin is the capital of Germany."]
        body = {"query": "capital of Germany", "documents": passages}
        results = httpx.post(f"http://127.0.0.1:{port}/v2/rerank", json=body, timeout=PATIENCE).json()["results"]
        expected = Reranker("mini").rank("capital of Germany", passages)
        assert [(one["index"], one["relevance_score"]) for one in results] == [
            (one.index, one.score) for one in expected
        ]
    finally:
        started.send_signal(signal.SIGINT)
        try:
            started.wait(PATIENCE)
        finally:
            started.kill()


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    except httpx.TransportError:
        return False
