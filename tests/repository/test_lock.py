"""requirements.lock pins all that pyproject.toml names, on every supported Python and platform."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import pytest

pytest.importorskip("packaging")

from environments import python_with
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gliclass_rerank.models.upstream import TESTED

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
PYTHONS = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
PLATFORMS = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")]


def environment(python: str, platform: str, machine: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": platform,
        "platform_system": platform.title(),
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "posix",
        "extra": "",
    }


def pins(where: Mapping[str, str]) -> dict[str, str]:
    """Versions by name; a package that two lines of the lock pin at the same place is an error."""
    found: dict[str, str] = {}
    for one in LOCK:
        if one.marker is None or one.marker.evaluate(dict(where)):
            assert canonicalize_name(one.name) not in found, one
            (pin,) = one.specifier
            found[canonicalize_name(one.name)] = pin.version
    return found


def named(where: Mapping[str, str]) -> Iterator[Requirement]:
    """What pyproject.toml names, in all extras, but for the extras' own names."""
    for list_ in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]:
        for one in map(Requirement, list_):
            applies = one.marker is None or one.marker.evaluate(dict(where))
            if applies and one.name != PROJECT["name"]:
                yield one


def test_every_line_is_one_version_and_no_place() -> None:
    assert len(LOCK) > 100
    for one in LOCK:
        assert one.url is None
        assert [pin.operator for pin in one.specifier] == ["=="]


@pytest.mark.parametrize(("python", "platform"), list(product(PYTHONS, PLATFORMS)))
def test_all_that_is_named_is_pinned_and_fits(python: str, platform: tuple[str, str]) -> None:
    where = environment(python, *platform)
    pinned = pins(where)
    wanted = list(named(where))
    assert {"onnxruntime", "torch", "fastapi", "pytest"} <= {one.name for one in wanted}
    for one in wanted:
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one


def test_the_versions_that_an_error_advises_are_in_the_lock() -> None:
    """Those of the oldest Python, which install on all others."""
    pinned = pins(environment(PYTHONS[0], *PLATFORMS[0]))
    for versions in TESTED.values():
        for name, version in versions.items():
            assert pinned[name] == version


def test_who_develops_installs_from_the_lock() -> None:
    install = 'install --quiet -c requirements.lock -e ".[dev]"'
    assert f"pip {install}" in (ROOT / "README.md").read_text("utf-8")
    assert f"pip {install}" in (ROOT / "Makefile").read_text("utf-8")
    assert 'PIP_CONSTRAINT="$PWD/requirements.lock"' in (ROOT / ".ci" / "run").read_text("utf-8")
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["sdist"]
    assert "requirements.lock" in packed["include"]


def test_a_client_of_the_conformance_matrix_is_not_held_to_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients need versions of their own, and .ci/run constrains pip by the lock."""
    constraint = tmp_path / "constraint.txt"
    constraint.write_text("pip<1\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(constraint))
    python = python_with(["pip>=2"], tmp_path / "client")
    assert python.is_file()
