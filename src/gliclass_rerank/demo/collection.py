"""Python's own documentation as a search collection, with one passage per object of the standard library.

The passages are read from the interpreter that runs the demo, without any download. They differ slightly between
Python versions.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import pkgutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from types import GenericAlias, MethodType, ModuleType

CACHE_FORMAT = 1  # raise it whenever collect() changes, so that stale cache files are ignored

# Modules that must not be imported (they open windows or browsers, print, touch the terminal, or are tests), and
# modules that repeat others under names that nobody types (os.path is posixpath or ntpath).
EXCLUDED_MODULES = {
    "antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "test", "lib2to3", "distutils",
    "ensurepip", "venv", "pydoc_data",
    "readline", "rlcompleter", "xxlimited", "xxlimited_35", "xxsubtype", "ctypes.macholib",
    "posix", "nt", "posixpath", "ntpath", "genericpath", "pyexpat", "nturl2path", "sre_compile",
    "sre_constants", "sre_parse",
}  # fmt: skip
OPAQUE_PACKAGES = {"encodings"}  # a hundred uninformative submodules, one per codec

MIN_DOC_CHARS = 15
MAX_REPEATS = 5
MAX_SIGNATURE_CHARS = 300
BOILERPLATE_STARTS = ("Help on ", "Alias for field number ")
LITERAL_TYPES = {type(None), bool, int, float, complex, str, bytes}


@dataclass(frozen=True, slots=True)
class Passage:
    """One documented object: its public dotted name, and its signature line followed by its docstring."""

    name: str
    text: str


def load_collection(cache_dir: Path | None = None) -> list[Passage]:
    """Return the passages of `collect`, from the user's cache directory if they were collected before."""
    version = ".".join(map(str, sys.version_info[:3]))
    path = (cache_dir or _user_cache_dir()) / f"python-docs-{version}-v{CACHE_FORMAT}.jsonl"
    passages = _read_cache(path)
    if not passages:
        passages = collect()
        # The cache only saves seconds, so a read-only or full disk must not stop the demo.
        with contextlib.suppress(OSError):
            _write_cache(path, passages)
    return passages


def collect() -> list[Passage]:
    """Collect the standard library's docstrings from the running interpreter, sorted by name."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        modules = _import_modules()
        objects = _canonical(_public_members(modules))
        public = frozenset(id(obj) for name, obj in objects.items() if not _is_alias(name, obj))
        members = (_with_class_members(name, obj, public) for name, obj in objects.items())
        objects = _canonical(chain.from_iterable(members))
        documented = objects | {name: module for name, module in modules.items() if name != "builtins"}
        docs = {name: _own_doc(obj) for name, obj in documented.items()}
        repeats = Counter(docs.values())
        return [
            Passage(name, f"{_signature_line(name, documented[name])}\n{doc}")
            for name, doc in sorted(docs.items())
            if _is_informative(doc) and repeats[doc] <= MAX_REPEATS
        ]


def _import_modules() -> dict[str, ModuleType]:
    modules: dict[str, ModuleType] = {}
    pending = sorted({*sys.stdlib_module_names, "os.path"})
    for name in pending:  # grows by the submodules of each package
        if name in EXCLUDED_MODULES or any(_is_internal(part) for part in name.split(".")):
            continue
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError):  # a module of another platform, or one missing in this build
            continue
        modules[name] = module
        if name not in OPAQUE_PACKAGES:
            found = pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}.")
            pending.extend(sorted(info.name for info in found))
    return modules


def _is_internal(module_part: str) -> bool:
    return module_part.startswith("_") or module_part == "test"


def _public_members(modules: dict[str, ModuleType]) -> Iterator[tuple[str, object]]:
    for module_name, module in modules.items():
        prefix = "" if module_name == "builtins" else f"{module_name}."
        for name in _public_names(module_name, module):
            member = _attribute(module, name)
            if not isinstance(member, ModuleType):
                yield prefix + name, member


def _public_names(module_name: str, module: ModuleType) -> list[str]:
    if module_name == "builtins":  # all of them, including open, which comes from io
        names = set(vars(module))
    else:
        # Names from a package's own submodules count as its own, since asyncio omits some in its __all__.
        names = _names_defined_in(module, lambda home: home.startswith(f"{module_name}."))
        if hasattr(module, "__all__"):
            names |= set(module.__all__)
        else:  # many modules are written in C under a private name: _socket, _sqlite3, _signal
            names |= _names_defined_in(module, {module_name, f"_{module_name}"}.__contains__)
    return sorted(name for name in names if not name.startswith("_"))


def _names_defined_in(module: ModuleType, is_home: Callable[[str], bool]) -> set[str]:
    homes = ((name, getattr(member, "__module__", None)) for name, member in vars(module).items())
    return {name for name, home in homes if isinstance(home, str) and is_home(home)}


def _attribute(owner: object, name: str) -> object:
    try:
        return getattr(owner, name)
    except (AttributeError, ImportError):  # some modules import the members of __all__ on first use
        return None


def _with_class_members(class_name: str, obj: object, public: frozenset[int]) -> Iterator[tuple[str, object]]:
    yield class_name, obj
    if not isinstance(obj, type):
        return
    for name, raw in _class_namespace(obj, public).items():
        if name.startswith("_") or _is_inherited_doc(obj, name, raw, public):
            continue
        member = _attribute(obj, name) or raw
        if not isinstance(member, type):
            yield f"{class_name}.{name}", member
        elif member.__qualname__ == f"{obj.__qualname__}.{name}":
            yield from _with_class_members(f"{class_name}.{name}", member, public)


def _class_namespace(cls: type, public: frozenset[int]) -> dict[str, object]:
    """Return the class's namespace, including those of private bases: ArgumentParser.add_argument is in one."""
    namespace: dict[str, object] = {}
    for base in reversed(cls.__bases__):
        if id(base) not in public:
            namespace.update(vars(base))
    return namespace | dict(vars(cls))


def _is_inherited_doc(cls: type, name: str, member: object, public: frozenset[int]) -> bool:
    public_bases = (base for base in cls.__mro__[1:] if id(base) in public)
    inherited = (vars(base)[name] for base in public_bases if name in vars(base))
    return any(_own_doc(other) == _own_doc(member) for other in inherited)


def _canonical(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Keep each object once, under its best name."""
    best: dict[int, tuple[str, object]] = {}
    for name, obj in pairs:
        underlying = obj.__func__ if isinstance(obj, MethodType) else obj  # random.shuffle is a bound method
        known = best.get(id(underlying))
        if known is None or _name_rank(name, obj) < _name_rank(*known):
            best[id(underlying)] = name, obj
    return dict(best.values())


def _name_rank(name: str, obj: object) -> tuple[int, bool, int, str]:
    return name.count("."), _is_alias(name, obj), len(name), name


def _is_alias(name: str, obj: object) -> bool:
    """Whether the object's own name differs: socket.SocketType is the private _socket.socket."""
    last = name.rpartition(".")[2]
    return getattr(obj, "__name__", last) != last


def _own_doc(obj: object) -> str:
    """Return the cleaned docstring of the object itself. An instance's is often only that of its class."""
    doc = getattr(obj, "__doc__", None)
    if isinstance(obj, type):
        # Some classes, such as ThreadPoolExecutor, are documented only in their constructor.
        doc = doc or getattr(vars(obj).get("__init__"), "__doc__", None)
    elif doc == type(obj).__doc__ or isinstance(obj, GenericAlias):  # dict[str, str] has dict's docstring
        return ""
    return inspect.cleandoc(doc).strip() if isinstance(doc, str) else ""


def _is_informative(doc: str) -> bool:
    return len(doc) >= MIN_DOC_CHARS and not doc.startswith(BOILERPLATE_STARTS)


def _signature_line(name: str, obj: object) -> str:
    if isinstance(obj, ModuleType):
        return f"module {name}"
    if not callable(obj):
        return name
    try:
        signature = inspect.signature(obj)
    # Signatures evaluate defaults (some of curses exist only at runtime) and, from Python 3.14 on, annotations.
    except (TypeError, ValueError, NameError, AttributeError):
        return name
    line = name + str(_simplified(signature))
    return line if len(line) <= MAX_SIGNATURE_CHARS else name


def _simplified(signature: inspect.Signature) -> inspect.Signature:
    """Drop self, annotations, and defaults that print addresses or the user's settings (os.environ)."""
    parameters = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.default if _prints_safely(parameter.default) else _ELIDED,
        )
        for parameter in signature.parameters.values()
    ]
    if parameters and parameters[0].name == "self":
        del parameters[0]
    return inspect.Signature(parameters)


def _prints_safely(default: object) -> bool:
    if isinstance(default, str) and len(default) > 1 and Path(default).is_absolute():
        return False  # a path of this machine, as in platform.architecture
    return default is inspect.Parameter.empty or default == () or type(default) in LITERAL_TYPES


class _Elided:
    def __repr__(self) -> str:
        return "..."


_ELIDED = _Elided()


def _user_cache_dir() -> Path:
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user without a home directory
        base = tempfile.gettempdir()
    return Path(base) / "gliclass-rerank"


def _read_cache(path: Path) -> list[Passage]:
    """Return the cached passages, or none if the file is missing, unreadable or corrupt."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [Passage(**json.loads(line)) for line in lines if line]
    except (OSError, ValueError, TypeError):
        return []


def _write_cache(path: Path, passages: Iterable[Passage]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Write to a temporary file and rename it, so that other processes never read a partial file.
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        try:
            file.writelines(json.dumps(asdict(passage)) + "\n" for passage in passages)
            file.close()
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
