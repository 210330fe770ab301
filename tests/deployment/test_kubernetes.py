"""The Kubernetes manifests are valid, fit one another, and set what the service reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("celery")
pytest.importorskip("kubernetes_validate")
pytest.importorskip("pydantic_settings")
pytest.importorskip("yaml")

import kubernetes_validate  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]
from gliclass_rerank_service.jobs.celery import make_app
from gliclass_rerank_service.server import ENDING_SECONDS
from gliclass_rerank_service.settings import PREFIX, Settings, read_settings
from typer.main import get_command

import gliclass_rerank
from gliclass_rerank import OptionError
from gliclass_rerank.cli.main import app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "service" / "deploy" / "kubernetes"
BASE, AUTOSCALED = FOLDER / "base", FOLDER / "autoscaled"
COMPOSE = yaml.safe_load((ROOT / "service" / "compose.yml").read_text("utf-8"))["services"]
SETTINGS = dict(line.split("=", 1) for line in (BASE / "settings.env").read_text("utf-8").splitlines())
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()  # 1.30 is where autoscaling and probes are as used here
EXTENSIONS = ("keda.sh/", "kustomize.config.k8s.io/", "monitoring.coreos.com/")  # no part of Kubernetes

Object = dict[str, Any]


def read(folder: Path) -> Iterator[Object]:
    for file in sorted(folder.glob("*.yml")):
        yield from yaml.safe_load_all(file.read_text("utf-8"))


OBJECTS = {(one["kind"], one["metadata"]["name"]): one for one in read(BASE) if "metadata" in one}
WORKLOADS = [one for (kind, _), one in OBJECTS.items() if kind in ("Deployment", "StatefulSet")]
by_name = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one["metadata"]["name"])


def pod(workload: Object) -> Object:
    found: Object = workload["spec"]["template"]["spec"]
    return found


def container(workload: Object) -> Object:
    (found,) = pod(workload)["containers"]
    assert isinstance(found, dict)
    return found


def environment(workload: Object) -> dict[str, str]:
    """Variables of a container of ours, as Kubernetes would set them."""
    values = {"requests.cpu": container(workload)["resources"].get("requests", {}).get("cpu", "")}
    found = dict(SETTINGS)
    for variable in container(workload)["env"]:
        source = variable.get("valueFrom", {})
        value = variable.get("value") or values.get(source.get("resourceFieldRef", {}).get("resource"), "secret")
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return found


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_objects_are_valid(version: str) -> None:
    checked = 0
    for one in [*read(BASE), *read(AUTOSCALED)]:
        if not one["apiVersion"].startswith(EXTENSIONS):
            kubernetes_validate.validate(one, version, strict=True)
            checked += 1
    assert checked == 8


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH")
@pytest.mark.parametrize("folder", [BASE, AUTOSCALED], ids=lambda folder: folder.name)
def test_kustomize_builds_what_is_valid_and_of_this_version(folder: Path) -> None:
    ended = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    built = [one for one in yaml.safe_load_all(ended.stdout) if not one["apiVersion"].startswith(EXTENSIONS)]
    for one in built:
        kubernetes_validate.validate(one, NEWEST, strict=True)
    (settings,) = [one for one in built if one["kind"] == "ConfigMap"]
    assert settings["data"] == SETTINGS
    deployments = [one for one in built if one["kind"] == "Deployment"]
    assert {container(one)["image"] for one in deployments} == {f"gliclass-rerank:{gliclass_rerank.__version__}"}
    for one in deployments:
        assert container(one)["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
        assert ("replicas" in one["spec"]) == (folder == BASE)  # else applying it again would undo the scaling


@pytest.mark.parametrize("name", ["gliclass-rerank", "gliclass-rerank-worker"])
def test_containers_set_what_the_service_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_here = environment(OBJECTS["Deployment", name])
    ours = {variable for variable in set_here if variable.startswith(PREFIX)}
    assert ours <= {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    for variable in ours:
        monkeypatch.setenv(variable, set_here[variable])
    settings = read_settings()
    assert settings.broker_url == "redis://:secret@gliclass-rerank-redis:6379/0"
    assert str(settings.threads) == container(OBJECTS["Deployment", name])["resources"]["requests"]["cpu"]
    assert (settings.api_key_file is not None) == (name == "gliclass-rerank")


def test_compose_and_kubernetes_set_the_same() -> None:
    for service in ("service", "worker"):
        both = {name: value for name, value in COMPOSE[service]["environment"].items() if name in SETTINGS}
        assert {
            name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for name, value in both.items()
        }.items() <= SETTINGS.items()
    redis = container(OBJECTS["StatefulSet", "gliclass-rerank-redis"])
    assert redis["image"] == COMPOSE["redis"]["image"]
    assert redis["args"][:-2] == COMPOSE["redis"]["command"]
    assert redis["args"][-2:] == ["--requirepass", f"$({redis['env'][0]['name']})"]


def test_no_pod_gets_the_variables_that_kubernetes_makes_of_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a Service gliclass-rerank would be read as the port to listen on."""
    monkeypatch.setenv("GLICLASS_RERANK_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(OptionError, match="port"):
        read_settings()
    assert [pod(one)["enableServiceLinks"] for one in WORKLOADS] == [False] * 3


@by_name
def test_pods_keep_the_restricted_standard(workload: Object) -> None:
    assert pod(workload)["automountServiceAccountToken"] is False
    assert pod(workload)["securityContext"]["runAsNonRoot"] is True
    assert pod(workload)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    rights = container(workload)["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"] == {"drop": ["ALL"]}


@by_name
def test_pods_say_what_they_need_and_how_they_are(workload: Object) -> None:
    resources = container(workload)["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "memory" in resources["limits"]
    assert "livenessProbe" in container(workload)


def test_probes_ask_what_the_service_answers() -> None:
    service = container(OBJECTS["Deployment", "gliclass-rerank"])
    paths = {name: service[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/health", "readiness": "/ready", "liveness": "/health"}
    ports = {one["name"]: one["containerPort"] for one in service["ports"]}
    assert ports == {"http": Settings.model_fields["port"].default}
    assert {service[f"{name}Probe"]["httpGet"]["port"] for name in paths} == {"http"}


def test_everything_ends_before_it_is_killed() -> None:
    service = OBJECTS["Deployment", "gliclass-rerank"]
    pause = int(container(service)["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = pause + float(SETTINGS["GLICLASS_RERANK_DRAIN_SECONDS"]) + ENDING_SECONDS
    assert needed < pod(service)["terminationGracePeriodSeconds"]
    worker = OBJECTS["Deployment", "gliclass-rerank-worker"]
    assert pod(worker)["terminationGracePeriodSeconds"] >= float(SETTINGS["GLICLASS_RERANK_JOB_VISIBILITY_SECONDS"])


def test_containers_run_commands_of_ours() -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    commands = [container(one)["args"] for one in WORKLOADS if one["kind"] == "Deployment"]
    assert sorted(commands) == [["serve"], ["worker"]]
    assert {"serve", "worker"} <= known.keys()


def test_what_is_referred_to_is_there() -> None:
    labels = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in WORKLOADS}
    for workload in WORKLOADS:
        assert workload["spec"]["selector"]["matchLabels"] == labels[workload["metadata"]["name"]]
        volumes = {one["name"] for one in pod(workload).get("volumes", [])}
        claimed = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", [])}
        assert {one["name"] for one in container(workload)["volumeMounts"]} == volumes | claimed
    for (kind, name), one in OBJECTS.items():
        if kind == "Service":
            assert one["spec"]["selector"] == labels[name]
            (port,) = one["spec"]["ports"]
            workload = next(other for other in WORKLOADS if other["metadata"]["name"] == name)
            assert port["targetPort"] in {other["name"] for other in container(workload)["ports"]}
    budget = OBJECTS["PodDisruptionBudget", "gliclass-rerank"]["spec"]
    assert budget["selector"]["matchLabels"] == labels["gliclass-rerank"]
    assert budget["minAvailable"] < OBJECTS["Deployment", "gliclass-rerank"]["spec"]["replicas"]
    for policy in (OBJECTS["NetworkPolicy", "gliclass-rerank-redis"], *read(AUTOSCALED)):
        if policy["kind"] == "NetworkPolicy":
            assert policy["spec"]["podSelector"]["matchLabels"] == labels["gliclass-rerank-redis"]


def test_the_autoscaler_scales_what_is_there_by_the_queue_of_the_jobs() -> None:
    scaled = [one for one in read(AUTOSCALED) if one["kind"] == "ScaledObject"]
    names = [one["spec"]["scaleTargetRef"]["name"] for one in scaled]
    assert names == ["gliclass-rerank", "gliclass-rerank-worker"]
    least = OBJECTS["PodDisruptionBudget", "gliclass-rerank"]["spec"]["minAvailable"]
    assert scaled[0]["spec"]["minReplicaCount"] > least
    (trigger,) = scaled[1]["spec"]["triggers"]
    metadata = [trigger["metadata"] for one in scaled for trigger in one["spec"]["triggers"]]
    assert all(isinstance(value, str) for one in metadata for value in one.values())  # KEDA takes no numbers
    queue = make_app(Settings(broker_url="redis://localhost:6379/0")).conf.task_default_queue
    assert trigger["metadata"]["listName"] == queue
    assert trigger["metadata"]["address"] in environment(OBJECTS["Deployment", names[1]])["GLICLASS_RERANK_BROKER_URL"]
    assert trigger["metadata"]["passwordFromEnv"] in environment(OBJECTS["Deployment", names[1]])
