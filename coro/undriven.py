"""A call that is never driven, found while the program runs.

`save(x)` where `yield from save(x)` was meant makes a generator and drops it: nothing of it runs, and Python says
nothing. With `install()`, every user module that is imported from then on is compiled so that each call statement
looks at the value it drops. A generator that has not started, and that nobody else holds, can never run any more: the
statement raises `NotDriven`, at its own line. To drop one on purpose, write `_ = save(x)`.

The statement `save(x)` is compiled as if it read

    if None is not save(x) in UNDRIVEN: raise UNDRIVEN.error("save(...)", True)

which evaluates `save(x)` once and, as most call statements drop None, most often costs one comparison of identity.
What is compiled so has its own files in `__pycache__` and never takes the place of the ordinary ones. The same mistake
is found without running anything by `coro check` (coro/check.py). Measurements: docs/design/undriven.md.
"""

from __future__ import annotations

import ast
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from inspect import GEN_CREATED, getgeneratorstate
from pathlib import Path
from types import GeneratorType, ModuleType
from typing import Any

from coro.errors import CoroError
from coro.task import Request

NAME = "_@undriven"  # of `UNDRIVEN` in a rewritten module: no program can write it, no `import *` takes it along
TAG = "coro-1"  # in the names of compiled files; to be counted up whenever `rewrite` writes something else

Function = ast.FunctionDef | ast.AsyncFunctionDef


class NotDriven(CoroError, RuntimeError):
    """A call statement made a generator and dropped it: what it should have done was never begun.

    Raised in the modules that `install` covers. Write `yield from save(x)`; `_ = save(x)` drops it on purpose.
    """


# --- At run time ------------------------------------------------------------------------


class _Undriven:
    """What call statements compare their values with: it contains all that was to be driven and no longer can be."""

    def __init__(self) -> None:
        self.alone = 0  # the count of references to a generator that only the call statement holds
        program: dict[str, Any] = {NAME: self}
        tree = ast.parse("def work():\n yield\nwork()")
        rewrite_statements(tree)
        exec(compile(tree, __file__, "exec"), program)  # counting this one: the count differs between Pythons

    def __contains__(self, value: object) -> bool:
        kind = type(value)
        if kind is GeneratorType:
            holders = sys.getrefcount(value)
            if not self.alone:
                self.alone = holders
                return False
            return holders <= self.alone and getgeneratorstate(value) == GEN_CREATED  # type: ignore[arg-type]
        if kind is tuple:
            return is_checkpoint(value)
        return False

    def error(self, call: str, in_function: bool) -> NotDriven:
        return NotDriven(mistake(call, in_function))


def is_checkpoint(value: object) -> bool:
    """Is it what `coro.checkpoint()` returns?"""
    return isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], Request)


# --- The syntax of it -------------------------------------------------------------------


def bodies(tree: ast.Module) -> Iterator[tuple[list[ast.stmt], Function | None]]:
    """Every list of statements in a module, with the function it belongs to, if any."""
    waiting: list[tuple[list[ast.stmt], Function | None]] = [(tree.body, None)]
    while waiting:  # a list, because `elif` after `elif` nests more deeply than Python's own stack allows
        body, function = waiting.pop()
        for statement in body:
            inner = function
            if isinstance(statement, Function):
                inner = statement
            elif isinstance(statement, ast.ClassDef):
                inner = None
            parts: list[Any] = [statement]
            parts += getattr(statement, "handlers", ())  # of `try`
            parts += getattr(statement, "cases", ())  # of `match`
            for part in parts:
                waiting += [(inside, inner) for name in _BODIES if (inside := getattr(part, name, None))]
        yield body, function


_BODIES = ("body", "orelse", "finalbody")


def shown(expression: ast.expr) -> str:
    """An expression as messages show it; of a call, what is called, without the arguments."""
    if isinstance(expression, ast.Call):
        return shown(expression.func) + ("(...)" if expression.args or expression.keywords else "()")
    if isinstance(expression, ast.Attribute):
        return f"{shown(expression.value)}.{expression.attr}"
    return f"({ast.unparse(expression)})" if isinstance(expression, ast.Lambda) else ast.unparse(expression)


def mistake(call: str, in_function: bool) -> str:
    """What is wrong with a call statement that drops what was to be driven, and the mend."""
    mend = f"yield from {call}" if in_function else f"coro.run({call})"
    made = "is called but" if call.endswith(")") else "is"
    return f"{call} {made} never driven, so nothing of it runs: write `{mend}`"


def rewrite(tree: ast.Module) -> None:
    """Turn every call statement of a module into one that raises `NotDriven` rather than drop what was to be driven."""
    if not rewrite_statements(tree):
        return
    first = 0
    while _stays_first(tree.body[first]):
        first += 1
    where = _place(tree.body[first])
    load = ast.ImportFrom(__name__, [ast.alias("UNDRIVEN", NAME, **where)], 0, **where)
    tree.body.insert(first, load)


def rewrite_statements(tree: ast.Module) -> bool:
    """The part of `rewrite` without the import of what the statements use; was there anything to do?"""
    found = False
    for body, function in bodies(tree):
        for n, statement in enumerate(body):
            if type(statement) is ast.Expr and type(statement.value) is ast.Call:
                body[n] = _checked(statement.value, function is not None)
                found = True
    return found


def _checked(call: ast.Call, in_function: bool) -> ast.If:
    where = _place(call)  # all of it: for tracebacks, debuggers and coverage the statement stays what it was
    dropped = ast.Compare(
        ast.Constant(None, **where), [ast.IsNot(), ast.In()], [call, ast.Name(NAME, ast.Load(), **where)], **where
    )
    make = ast.Attribute(ast.Name(NAME, ast.Load(), **where), "error", ast.Load(), **where)
    error = ast.Call(make, [ast.Constant(shown(call), **where), ast.Constant(in_function, **where)], [], **where)
    return ast.If(dropped, [ast.Raise(error, None, **where)], [], **where)


def _place(node: ast.expr | ast.stmt) -> dict[str, Any]:
    return {
        "lineno": node.lineno,
        "col_offset": node.col_offset,
        "end_lineno": node.end_lineno,
        "end_col_offset": node.end_col_offset,
    }


def _stays_first(statement: ast.stmt) -> bool:
    """Is it the docstring, or an import from `__future__`?"""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


UNDRIVEN = _Undriven()


# --- The import hook --------------------------------------------------------------------


def written_by_user(path: str) -> bool:
    """Is this source file the user's own: not coro's, not the standard library's, not an installed package's?"""
    path = os.path.realpath(path)
    return not path.startswith(_NOT_THE_USERS) and not _INSTALLED.intersection(Path(path).parts)


_INSTALLED = frozenset(("site-packages", "dist-packages"))
_NOT_THE_USERS = tuple(os.path.join(os.path.dirname(os.path.realpath(file)), "") for file in (__file__, os.__file__))


class _Loader(SourceFileLoader):
    """Loads a module from its source file as usual, but rewritten, and cached under names of its own."""

    def source_to_code(self, data: Any, path: Any, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        # What is wrong is told by Python as always. What is nested too deeply for a tree, but not for Python, stays
        # unchecked: no module must fail to import because of us.
        with suppress(SyntaxError, RecursionError):
            tree = ast.parse(data, os.fspath(path))
            rewrite(tree)
            return super().source_to_code(tree, path, *arguments, **options)
        return super().source_to_code(data, path, *arguments, **options)

    def get_data(self, path: str) -> bytes:
        return super().get_data(_compiled(path))

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        super().set_data(_compiled(path), data, _mode=_mode)


def _compiled(path: str) -> str:
    """The name of our own compiled file for that of the ordinary one; a name of another file as it is."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}.{TAG}{suffix}" if suffix in (".pyc", ".pyo") else path


class _Finder:
    """Has the finders behind it find the module, and puts our loader in the place of the ordinary one."""

    def __init__(self, covers: Callable[[str], bool]) -> None:
        self.covers = covers

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                # Exactly this type: archives, namespace packages, extension modules and loaders of others stay.
                if type(spec.loader) is SourceFileLoader and self.covers(spec.loader.path):
                    spec.loader = _Loader(spec.loader.name, spec.loader.path)
                return spec
        return None


def _join_pytest(covers: Callable[[str], bool]) -> Callable[[], None]:
    """Test modules are compiled by pytest itself, to explain assertions: have them rewritten first. Returns the undo.

    pytest has no door for this, so two of its names are replaced; its compiled files get names of their own as well.
    """
    names: dict[str, Any] = vars(sys.modules["_pytest.assertion.rewrite"])
    original = {name: names.get(name) for name in ("rewrite_asserts", "PYC_TAIL")}
    rewrite_further, tail = original.values()
    if rewrite_further is None or tail is None:
        warnings.warn("this version of pytest is new to coro: test modules are not checked", stacklevel=3)
        return lambda: None

    def rewrite_asserts(tree: ast.Module, source: bytes, path: str | None = None, *others: Any) -> None:
        if path is not None and covers(path):
            rewrite(tree)
        rewrite_further(tree, source, path, *others)

    names.update(rewrite_asserts=rewrite_asserts, PYC_TAIL=_compiled(tail))
    return lambda: names.update(original)


_undo: list[Callable[[], None]] = []


def install(covers: Callable[[str], bool] = written_by_user) -> None:
    """From now on, a call statement in an imported module that drops what was to be driven raises `NotDriven`.

    `covers` is given the path of each source file and says whether it is meant; by default, those of the user. Modules
    that were imported before stay as they are. A second call replaces the first. Inside pytest, test modules are
    covered too. Does not suspend.
    """
    uninstall()
    finder = _Finder(covers)
    sys.meta_path.insert(0, finder)
    _undo.append(lambda: sys.meta_path.remove(finder))
    if "_pytest.assertion.rewrite" in sys.modules:
        _undo.append(_join_pytest(covers))


def uninstall() -> None:
    """Undo `install`, if it was called. Modules imported meanwhile stay as they are. Does not suspend."""
    while _undo:
        _undo.pop()()
