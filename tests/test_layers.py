"""The shape of the source, as rules that hold for every module of coro/ and apps/.

A module imports only from layers above its own, so the code can be read from the top down and each layer be
understood, and tested, without those below it. Imports for annotations only (`if TYPE_CHECKING:`) do not
count: they do not run.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

# From the top down. Modules in one row do not know each other; a package counts as one module here.
# `coro` itself is the public face of what stands above it; protocols may use it as their users do.
LAYERS = (
    ("coro.errors",),
    ("coro.handover", "coro.running", "coro.timers"),
    ("coro.scopes",),
    ("coro.task",),
    ("coro.mistakes",),
    ("coro.loop",),
    ("coro.io",),
    ("coro.timing", "coro.sync", "coro.group", "coro.streams", "coro.worker"),
    ("coro.threads", "coro.signals"),
    ("coro.processes", "coro.net", "coro.files"),
    ("coro.debug",),
    ("coro",),
    ("coro.http", "coro.redis", "coro.mysql"),
    ("coro.undriven",),
    ("coro.check",),
    ("coro.testing",),
    ("coro.supervisor",),
    ("coro.cli",),
    ("coro.__main__",),
    ("apps",),
)
LAYER = {module: number for number, row in enumerate(LAYERS) for module in row}

# These talk to the loop by yielding requests, and in no other way.
KNOWS_NO_LOOP = {"coro.io", "coro.sync", "coro.http", "coro.redis", "coro.mysql"}

# A protocol's package consists of sans-I/O modules (bytes in, messages out) and of these, which perform.
PROTOCOLS = ("coro.http.", "coro.redis.", "coro.mysql.")
PERFORMS_IO = {
    "coro.http.client.bodies",
    "coro.http.client.client",
    "coro.http.client.exchange",
    "coro.http.client.pool",
    "coro.http.connection",
    "coro.http.files",
    "coro.http.log",
    "coro.http.server",
    "coro.http.upgrade",
    "coro.mysql.channel",
    "coro.mysql.connection",
    "coro.mysql.login",
    "coro.mysql.pool",
    "coro.mysql.servers",
    "coro.mysql.streaming",
    "coro.redis.client",
    "coro.redis.cluster",
    "coro.redis.cluster_pubsub",
    "coro.redis.dispatch",
    "coro.redis.nodes",
    "coro.redis.connection",
    "coro.redis.lock",
    "coro.redis.monitor",
    "coro.redis.pool",
    "coro.redis.sentinel",
    "coro.redis.pubsub",
    "coro.redis.session",
    "coro.redis.shared",
}
SANS_IO_MAY_IMPORT = {"coro.errors", "coro.task"}
IO_OF_THE_STANDARD_LIBRARY = {"select", "selectors", "socket", "ssl", "subprocess", "threading"}

OTHER_CONCURRENCY = {"asyncio", "concurrent", "curio", "eventlet", "gevent", "greenlet", "trio", "uvloop"}
ASYNC_SYNTAX = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)

LINES_IN_A_FILE = 500
LINES_IN_A_FUNCTION = 60


def _name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_name(path): path for top in ("coro", "apps") for path in sorted((CHECKOUT / top).rglob("*.py"))}
PACKAGES = {name for name, path in SOURCES.items() if path.name == "__init__.py"}

every_module = pytest.mark.parametrize("module", SOURCES)
every_sans_io_module = pytest.mark.parametrize(
    "module",
    [name for name in SOURCES if name.startswith(PROTOCOLS) and name not in PACKAGES | PERFORMS_IO],
)


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(), filename=str(SOURCES[module]))


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` but what stands under `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from _running(child)


def _imports(module: str) -> Iterator[tuple[str, str]]:
    """Each import as (module, name taken from it); the name is "" where the module itself is imported."""
    for node in _running(_tree(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are absolute here"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield (submodule, "") if submodule in SOURCES else (str(node.module), alias.name)


def _imported_modules(module: str) -> set[str]:
    return {imported for imported, _ in _imports(module)}


def _unit(module: str) -> str:
    """The module's entry in the table: `coro.http` for `coro.http.server`, `apps` for `apps.upload`."""
    return ".".join(module.split(".")[: 2 if module.startswith("coro.") else 1])


def _layer(module: str) -> int:
    unit = _unit(module)
    assert unit in LAYER, f"{unit} has no place in the table of layers yet: decide where it belongs"
    return LAYER[unit]


@every_module
def test_imports_only_from_layers_above_its_own(module: str) -> None:
    others = {name for name in _imported_modules(module) if _unit(name) != _unit(module)}
    ours = {name for name in others if name.split(".")[0] in ("coro", "apps")}
    assert not {name for name in ours if _layer(name) >= _layer(module)}


@every_module
def test_talks_to_the_loop_only_by_requests(module: str) -> None:
    if _unit(module) in KNOWS_NO_LOOP:
        assert "coro.loop" not in _imported_modules(module)
        assert ("coro", "Loop") not in _imports(module)


@every_module
def test_uses_no_other_kind_of_concurrency(module: str) -> None:
    assert not {name.split(".")[0] for name in _imported_modules(module)} & OTHER_CONCURRENCY
    assert not [node.lineno for node in ast.walk(_tree(module)) if isinstance(node, ASYNC_SYNTAX)]


@every_sans_io_module
def test_sans_io_module_touches_neither_sockets_nor_the_loop(module: str) -> None:
    imported = _imported_modules(module)
    assert not imported & IO_OF_THE_STANDARD_LIBRARY
    siblings = {name for name in imported if _unit(name) == _unit(module)}
    ours = {name for name in imported if name.split(".")[0] == "coro"}
    assert not siblings & (PERFORMS_IO | PACKAGES)
    assert not ours - siblings - SANS_IO_MAY_IMPORT


@pytest.mark.parametrize("module", [name for name in SOURCES if _unit(name) == "apps"])
def test_app_uses_only_public_names(module: str) -> None:
    """Public: what `coro` itself, a module below the kernel or a protocol's package offers, no underscore."""
    for imported, name in _imports(module):
        if imported.split(".")[0] == "coro":
            assert imported not in ("coro.task", "coro.loop", "coro.io"), f"take {name} from coro itself"
            assert imported.count(".") <= 1, f"{imported} is inside a package: take {name} from the package"
            assert not name.startswith("_"), f"{name} of {imported} is private"


@every_module
def test_fits_on_a_desk(module: str) -> None:
    assert len(SOURCES[module].read_text().splitlines()) <= LINES_IN_A_FILE
    functions = [node for node in ast.walk(_tree(module)) if isinstance(node, ast.FunctionDef)]
    lengths = [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]
    assert not [(name, length) for name, length in lengths if length > LINES_IN_A_FUNCTION]
