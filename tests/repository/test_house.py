"""The house: which room may import which, no circle between two files, and rooms that a reader can take in."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
LIBRARY, SERVICE = "gliclass_rerank", "gliclass_rerank_service"
DOORS = (SERVICE, "gliclass_rerank_llama_index", "gliclass_rerank_langchain")
# What each room of the library may import beside itself. `scorers.load` turns a name into a scorer.
BASE = {"errors", "types", "validation"}
CORE = BASE | {"calibration", "metrics", "scoring", "unreadable", "forks", "copies"}
ARROWS = {
    "errors": set(),
    "validation": {"errors"},
    "calibration": {"errors", "validation"},
    "types": {"errors", "validation", "calibration"},
    "metrics": BASE | {"calibration"},
    "unreadable": BASE,
    "scoring": BASE | {"unreadable"},
    "forks": set(),
    "copies": BASE,
    "passage_files": BASE,
    "models": BASE | {"calibration"},
    "scorers": CORE | {"models"},
    "tasks": CORE | {"scorers.load"},
    "export": CORE | {"models", "scorers"},
    "training": CORE | {"models", "scorers", "tasks"},
    "demo": CORE | {"tasks"},
    "playground": CORE | {"tasks", "scorers", "passage_files"},
}
LARGEST_ROOM = 10  # files, beside __init__


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(LIBRARY, *DOORS, cache_dir=None)


def room_of(module: str) -> str:
    return module.removeprefix(f"{LIBRARY}.").partition(".")[0]


def imports_between_rooms(graph: grimp.ImportGraph) -> list[tuple[str, str]]:
    """Importer and imported, both modules of the library in different rooms."""
    return [
        (importer, imported)
        for importer in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(importer))
        if importer.startswith(f"{LIBRARY}.")
        and imported.startswith(f"{LIBRARY}.")
        and room_of(importer) != room_of(imported)
    ]


def test_no_two_files_import_each_other(graph: grimp.ImportGraph) -> None:
    """Neither directly nor through others, imports for type checkers included."""
    circles = [
        f"{importer} -> {imported}"
        for importer in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(importer))
        if graph.chain_exists(importer=imported, imported=importer)
    ]
    assert circles == []


def test_rooms_import_what_the_architecture_allows(graph: grimp.ImportGraph) -> None:
    wrong = []
    for importer, imported in imports_between_rooms(graph):
        room = room_of(importer)
        if room != "cli":  # the command line is above all of them
            name = imported.removeprefix(f"{LIBRARY}.")
            allowed = ARROWS[room]
            if name not in allowed and room_of(imported) not in allowed:
                wrong.append(f"{importer} -> {imported}")
    assert wrong == []


def test_the_library_imports_no_door_but_from_the_command_line(graph: grimp.ImportGraph) -> None:
    upward = {
        importer
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if room_of(importer) != "cli" and importer.startswith((f"{LIBRARY}.", LIBRARY)) and imported.startswith(DOORS)
        and not importer.startswith(DOORS)
    }  # fmt: skip
    assert upward == set()


def test_doors_do_not_import_each_other(graph: grimp.ImportGraph) -> None:
    def door_of(module: str) -> str:
        return module.partition(".")[0]

    crossing = {
        (importer, imported)
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if {door_of(importer), door_of(imported)} <= set(DOORS) and door_of(importer) != door_of(imported)
    }
    assert crossing == set()


@pytest.mark.parametrize("top", ["src", "integrations", "service", "benchmarks"])
def test_no_room_has_more_files_than_a_reader_can_take_in(top: str) -> None:
    rooms = {file.parent for file in (ROOT / top).rglob("*.py")}
    assert rooms
    sizes = {str(room.relative_to(ROOT)): len({*room.glob("*.py")} - {room / "__init__.py"}) for room in rooms}
    assert {room: size for room, size in sizes.items() if size > LARGEST_ROOM} == {}
