"""Build what is to be released and check it; nothing is uploaded.

    make release                         # at the commit that becomes the release
    python .ci/release.py --rehearsal    # at any time: with changes not committed, and no date in the changelog

In this order, and the first that fails ends it:

1. Everything is committed, and CHANGELOG.md has an entry for the version, with its date.
2. The sdist is built, and the wheel from it; a wheel built without the sdist has the same files.
3. The wheel holds what git knows of the packages, and nothing else; the sdist holds only what git knows.
4. `twine check --strict`: the metadata, and whether the README can be shown.
5. `.ci/check_wheel` on each supported Python that this machine has.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
CLASSIFIER = "Programming Language :: Python :: 3."


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rehearsal", action="store_true", help="allow changes, and an entry without a date")
    parser.add_argument("--python", action="append", help="check the wheel on this one only; may be given again")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    version = read_version(project)
    check_changelog(version, options.rehearsal)
    known = known_files(options.rehearsal)
    sdist, wheel = build(version)
    check_files(sdist, wheel, known, project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    for python in options.python or supported_pythons(project):
        say(f"the wheel on {python}")
        run(ROOT / ".ci" / "check_wheel", wheel, python)
    say("ready")
    for file in (sdist, wheel):
        print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(ROOT)}")


def read_version(project: dict[str, Any]) -> str:
    """The version, from where the build reads it."""
    file = ROOT / project["tool"]["hatch"]["version"]["path"]
    found = re.search(r'^__version__ = "([^"]+)"$', file.read_text("utf-8"), re.MULTILINE)
    require(found is not None, f"{file}: expected a line __version__ = ...")
    assert found is not None
    return found[1]


def check_changelog(version: str, rehearsal: bool) -> None:
    """The newest entry is this version's; it has a date, and says something."""
    entries = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    title, _, body = (entries or [""])[0].partition("\n")
    date = r"\(\d{4}-\d\d-\d\d\)" + (r"|\(unreleased\)" if rehearsal else "")
    fits = re.fullmatch(rf"{re.escape(version)} ({date})", title)
    require(
        fits is not None, f'CHANGELOG.md: expected "## {version} (YYYY-MM-DD)" as its first entry, got "## {title}"'
    )
    require("\n- " in body, f"CHANGELOG.md: expected a list of changes below {title!r}, got none")


def known_files(rehearsal: bool) -> set[str]:
    """Paths of all files that git tracks; in a rehearsal also of those that it would."""
    changed = output("git", "status", "--porcelain")
    require(rehearsal or not changed, f"expected that everything is committed; commit, or remove:\n{changed}")
    others = ["--others", "--exclude-standard"] if rehearsal else []
    return set(output("git", "ls-files", "-z", "--cached", *others).split("\0")) - {""}


def build(version: str) -> tuple[Path, Path]:
    """Build sdist and wheel into an empty dist/, and compare the wheel with one made without the sdist."""
    say(f"building {version}")
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "build", "--outdir", DIST, stdout=subprocess.DEVNULL)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, stdout=subprocess.DEVNULL)
        (sdist,), (wheel,), (direct,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl"), Path(folder).glob("*.whl")
        differ = {name for name, _ in contents(wheel).items() ^ contents(direct).items()}
        require(not differ, f"the wheel of the sdist is another than the one of this folder: {sorted(differ)}")
    require(wheel.name.split("-")[1] == version, f"expected a wheel of {version}, got {wheel.name}")
    return sdist, wheel


def check_files(sdist: Path, wheel: Path, known: set[str], packages: list[str]) -> None:
    """Compare what is packed with what git knows."""
    parents = {package: PurePosixPath(package).parent for package in packages}
    expected = {
        str(PurePosixPath(file).relative_to(parent))
        for package, parent in parents.items()
        for file in known
        if file.startswith(f"{package}/") and (ROOT / file).is_file()
    }
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    differ = contents(wheel).keys() ^ (expected | {f"{info}/{name}" for name in METADATA})
    require(not differ, f"{wheel.name}: missing or not known to git: {sorted(differ)}")
    with tarfile.open(sdist) as packed:
        files = {member.name.partition("/")[2] for member in packed if not member.isdir()}
    stray = files - known - {"PKG-INFO"}
    require(not stray, f"{sdist.name}: not known to git: {sorted(stray)}")
    print(f"{wheel.name}: {len(expected)} files, {wheel.stat().st_size / 1e6:.1f} MB")
    print(f"{sdist.name}: {len(files)} files, {sdist.stat().st_size / 1e6:.1f} MB")


def contents(wheel: Path) -> dict[str, str]:
    """Digest of each file of a wheel."""
    with zipfile.ZipFile(wheel) as packed:
        return {name: hashlib.sha256(packed.read(name)).hexdigest() for name in packed.namelist()}


def supported_pythons(project: dict[str, Any]) -> list[str]:
    """Interpreters of the versions that pyproject.toml names, as far as this machine has them."""
    minors = [one[len(CLASSIFIER) :] for one in project["project"]["classifiers"] if one.startswith(CLASSIFIER)]
    require(bool(minors), f"pyproject.toml: expected classifiers '{CLASSIFIER}N', got none")
    found = {minor: python_of(f"3.{minor}") for minor in minors}
    for minor, python in found.items():
        print(f"Python 3.{minor}: {python or 'not on this machine, so not checked'}")
    usable = [python for python in found.values() if python]
    require(bool(usable), "expected one of these on PATH or with pyenv, got none")
    return usable


def python_of(version: str) -> str | None:
    """An interpreter that can make virtual environments: on PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    for candidate in filter(None, candidates):
        code = [str(candidate), "-c", "import ensurepip, sys; print(sys.executable)"]
        tried = subprocess.run(code, capture_output=True, text=True)  # pyenv has commands of versions it does not use
        if tried.returncode == 0:
            return tried.stdout.strip()
    return None


def run(*command: str | Path, stdout: int | None = None) -> None:
    """Run a command in the repository; end with it if it fails."""
    ended = subprocess.run(command, cwd=ROOT, stdout=stdout)
    require(ended.returncode == 0, f"{' '.join(map(str, command))}: failed")


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def require(holds: bool, message: str) -> None:
    """End with a message unless something holds."""
    if not holds:
        sys.exit(f"release: {message}")


def say(line: str) -> None:
    """Head what follows."""
    print(f"\n=== {line}", flush=True)


if __name__ == "__main__":
    main()
