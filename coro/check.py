"""`coro check PATHS`: calls that are never driven, found without running anything.

`save(x)` where `yield from save(x)` was meant makes a generator and drops it: nothing of it runs, and Python says
nothing. Whether `save(x)` is a `Coro` is a question of types, and mypy answers it. It is asked through its documented
surface alone, the command line, as nothing else of it stays the same from version to version: mypy reads each source
file in a copy (`--shadow-file`) where `save(x)` has become `reveal_type((save(x), 7))`, and among what it prints is
the type of call number 7. Whatever else it finds is left to mypy's own users.

What is reported is certain:
- a call statement whose value is a `Coro`, or what `coro.checkpoint()` returns (also in a list, in `a if b else c`);
- a local variable that is given a `Coro` and never read;
- `yield save(x)` in a function that is a `Coro` itself, and `return save(x)` where the result is declared to be plain;
- a `Coro` as a condition, which is always true: `if allowed(user):`.

A function without annotations has no type to go by: such calls are found at run time only (coro/undriven.py).
`_ = save(x)` drops a `Coro` on purpose.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import coro
from coro.undriven import Function, bodies, mistake, shown

CLEAN, FOUND, NOT_CHECKED = 0, 1, 2
CACHE = ".mypy_cache/coro-check"  # mypy's cache of its own runs is of other sources: the two must not meet

PLAIN = {"bool", "bytearray", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"}
SEES_ALL_NAMES = {"locals", "vars", "eval", "exec"}

COROUTINE = re.compile(r"(typing\.)?Generator\[coro\.task\.Request, .*\]")
CHECKPOINT = re.compile(r"[tT]uple\[coro\.task\.Request\]")
REVEALED = re.compile(r'Revealed type is "[tT]uple\[(?P<type>.*), Literal\[(?P<number>\d+)\]\?\]"')
CONDITION = re.compile(r'"(?P<function>[^"]*)" returns "Generator\[Request, [^"]*" which does not implement __bool__')
IGNORE = re.compile(rb"#(\s*)type:(\s*)ignore")


class NotChecked(coro.CoroError):
    """Why no answer can be given, in one line."""


@dataclass(frozen=True, order=True)
class Finding:
    """One mistake, as it is printed."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Question:
    """One call whose type decides whether there is a mistake."""

    call: ast.Call
    message: str  # what is wrong, if the call's value is a `Coro`

    @property
    def holder(self) -> ast.expr | None:
        """What the call may have been handed its value by, as in `jobs.pop(key)`."""
        return self.call.func.value if isinstance(self.call.func, ast.Attribute) else None


def main(paths: Sequence[str]) -> int:
    """Check these files, and all Python files in these folders; print what is found. The exit code.

    1 when something was found, 0 when not, 2 when it could not be checked (one line on stderr says why).
    """
    try:
        files = list(_files(paths))
        findings = check(files)
    except NotChecked as reason:
        print(f"coro: {reason}", file=sys.stderr)
        return NOT_CHECKED
    for finding in findings:
        print(finding)
    print(f"coro: {len(findings)} found, {len(files)} files checked", file=sys.stderr)
    return FOUND if findings else CLEAN


def check(files: Sequence[str]) -> list[Finding]:
    """The mistakes in these source files, by file and line. `NotChecked` when mypy cannot be asked."""
    if find_spec("mypy") is None:
        raise NotChecked("`coro check` needs mypy: install it next to coro, with `python -m pip install mypy`")
    questions: list[Question] = []
    places: list[tuple[str, int]] = []  # of each question
    with tempfile.TemporaryDirectory(prefix="coro-check-") as folder:
        command = [*_MYPY, "--cache-dir", CACHE]
        for n, path in enumerate(files):
            source, encoding = _read(path)
            asked = _questions(_parse(source, path))
            if asked:
                shadow = Path(folder, f"{n}.py")
                shadow.write_text(_shadow(source, asked, len(questions)), encoding=encoding)
                command += ["--shadow-file", path, str(shadow)]
            questions += asked
            places += [(path, question.call.lineno) for question in asked]
        answers = _ask([*command, "--", *files]) if files else []

    types, holders, findings = _answers(answers)
    for number, question in enumerate(questions):
        held_by = " ".join(holders[number])
        if any(_undriven(kind, held_by) for kind in types[number]):
            findings.add(Finding(*places[number], question.message))
    return sorted(findings)


# --- Files ------------------------------------------------------------------------------


def _files(paths: Sequence[str]) -> Iterator[str]:
    """The source files in question, each once. Hidden folders and virtual environments are passed over."""
    seen: set[str] = set()
    for given in paths:
        if not os.path.exists(given):
            raise NotChecked(f"there is no file or folder {given!r}")
        for path in _within(given) if os.path.isdir(given) else [given]:
            path = os.path.normpath(path)
            if path not in seen:
                seen.add(path)
                yield path


def _within(folder: str) -> Iterator[str]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not os.path.exists(os.path.join(where, name, "pyvenv.cfg"))
        )
        yield from (os.path.join(where, name) for name in sorted(names) if name.endswith(".py"))


def _read(path: str) -> tuple[str, str]:
    """The text of a source file, and its encoding."""
    try:
        with tokenize.open(path) as file:
            return file.read(), file.encoding
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise NotChecked(f"{path} cannot be read: {error}") from None


def _parse(source: str, path: str) -> ast.Module:
    try:
        return ast.parse(source, path)
    except SyntaxError as error:
        raise NotChecked(f"{path}:{error.lineno}: {error.msg}") from None


# --- What to ask ------------------------------------------------------------------------


def _questions(tree: ast.Module) -> list[Question]:
    questions: list[Question] = []
    for body, function in bodies(tree):
        read = _names_read(function) if function is not None else None
        for statement in body:
            match statement:
                case ast.Expr(ast.Yield(ast.Call() as call)) | ast.Assign(value=ast.Yield(ast.Call() as call)):
                    if function is not None and _coro_result(function) is not None:
                        questions.append(Question(call, f"{shown(call)} is yielded: write `yield from {shown(call)}`"))
                case ast.Expr(value):
                    for call in _dropped(value):
                        questions.append(Question(call, mistake(shown(call), function is not None)))
                case ast.Assign([ast.Name(name)], ast.Call() as call):
                    if read is not None and name not in read and not name.startswith("_"):
                        mend = f"write `{name} = yield from {shown(call)}`"
                        questions.append(Question(call, f"{shown(call)} is never driven, {name} never read: {mend}"))
                case ast.Return(ast.Call() as call):
                    if function is not None and _returns_plain(function):
                        mend = f"write `return (yield from {shown(call)})`"
                        questions.append(Question(call, f"{shown(call)} is returned, not driven: {mend}"))
    return questions


def _dropped(value: ast.expr) -> Iterator[ast.Call]:
    """The calls whose values an expression statement drops."""
    match value:
        case ast.Call(ast.Name("next")):
            pass  # what comes out was inside before
        case ast.Call():
            yield value
        case ast.IfExp(_, first, second):
            yield from _dropped(first)
            yield from _dropped(second)
        case ast.BoolOp(_, values):
            yield from _dropped(values[-1])  # the others are conditions
        case ast.Tuple(elements) | ast.List(elements) | ast.Set(elements):
            for element in elements:
                yield from _dropped(element)
        case ast.ListComp(element) | ast.SetComp(element):
            yield from _dropped(element)


def _names_read(function: Function) -> set[str] | None:
    """The names that a function, and those inside it, do more with than to assign them; None for all names."""
    names: set[str] = set()
    for node in ast.walk(function):
        match node:
            case ast.Name(name, ast.Load() | ast.Del()):
                names.add(name)
            case ast.Global(shared) | ast.Nonlocal(shared):
                names.update(shared)
    return None if names & SEES_ALL_NAMES else names


def _coro_result(function: Function) -> ast.expr | None:
    """`T` of a function that is declared to return `Coro[T]`."""
    match function.returns:
        case ast.Subscript(ast.Name("Coro") | ast.Attribute(attr="Coro"), result):
            return result
    return None


def _returns_plain(function: Function) -> bool:
    """Is what `return` gives declared to be None, a number, a text, a list ...: something that is no `Coro`?"""
    declared = function.returns
    if _is_generator(function):
        declared = _coro_result(function)
    match declared:
        case ast.Constant(None):
            return True
        case ast.Name(name) | ast.Subscript(ast.Name(name)):
            return name in PLAIN
    return False


def _is_generator(function: Function) -> bool:
    waiting: list[ast.AST] = list(function.body)
    for node in waiting:
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return False


# --- Asking mypy ------------------------------------------------------------------------

_MYPY = [
    *(sys.executable, "-m", "mypy", "--output", "json", "--no-error-summary"),
    *("--check-untyped-defs", "--enable-error-code", "truthy-bool"),
]


def _shadow(source: str, questions: Iterable[Question], number: int) -> str:
    """The source with each question put around its call; no line moves. Numbers count up from the given one."""
    lines = [line.encode() for line in io.StringIO(source)]
    edits: list[tuple[int, int, str]] = []
    for n, question in enumerate(questions, number):
        call, holder = question.call, question.holder
        assert call.end_lineno is not None and call.end_col_offset is not None
        before, after = "reveal_type((", f", {2 * n}))"
        if holder is not None:
            before, after = f"({before}", f"{after}, reveal_type(({ast.unparse(holder)}, {2 * n + 1})))"
        edits.append((call.lineno - 1, call.col_offset, before))
        edits.append((call.end_lineno - 1, call.end_col_offset, after))
        for line in range(call.lineno - 1, call.end_lineno):  # `type: ignore` would silence the answer
            lines[line] = IGNORE.sub(rb"#\1type:\2Ignore", lines[line])
    for line, column, text in sorted(edits, reverse=True):  # from the end, so that columns stay true
        lines[line] = lines[line][:column] + text.encode() + lines[line][column:]
    return b"".join(lines).decode()


def _ask(command: Sequence[str]) -> list[dict[str, Any]]:
    """Run mypy; what it has to say. `NotChecked` when it gives up."""
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    said: list[dict[str, Any]] = []
    other: list[str] = done.stderr.splitlines()
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            said.append(json.loads(line))
        else:
            other.append(line)
    if done.returncode not in (0, 1):
        blocking = [f"{message['file']}:{message['line']}: {message['message']}" for message in said]
        raise NotChecked(f"mypy gave up: {(other + blocking + ['no reason given'])[0]}")
    return said


def _environment() -> dict[str, str]:
    """For mypy, which does not look where Python does: this very `coro` can be found."""
    root = Path(coro.__file__).resolve().parent.parent
    if root.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    path = os.environ.get("MYPYPATH")
    return {**os.environ, "MYPYPATH": f"{path}{os.pathsep}{root}" if path else str(root)}


def _answers(
    messages: Iterable[dict[str, Any]],
) -> tuple[dict[int, list[str]], dict[int, list[str]], set[Finding]]:
    """By the number of the question: the types of the call, those of its holder; and what mypy itself found."""
    types: dict[int, list[str]] = defaultdict(list)
    holders: dict[int, list[str]] = defaultdict(list)
    findings: set[Finding] = set()
    for message in messages:
        if revealed := REVEALED.fullmatch(message["message"]):
            number, of_holder = divmod(int(revealed["number"]), 2)
            (holders if of_holder else types)[number].append(revealed["type"])
        elif message["code"] == "truthy-bool" and (condition := CONDITION.match(message["message"])):
            call = f"{condition['function'].rpartition('.')[2]}(...)"
            text = f"{call} is never driven, and as a condition always true: write `(yield from {call})`"
            findings.add(Finding(message["file"], message["line"], text))
    return types, holders, findings


def _undriven(kind: str, held_by: str) -> bool:
    """Is a value of this type a `Coro`, at least at times, and not one that its holder was given before?"""
    return any(
        (COROUTINE.fullmatch(member) is not None and member not in held_by) or CHECKPOINT.fullmatch(member) is not None
        for member in _members(kind)
    )


def _members(kind: str) -> list[str]:
    """The members of a union, in mypy's notation; the type itself if it is none."""
    separator = " | "
    if kind.startswith("Union[") and kind.endswith("]"):
        kind, separator = kind[6:-1], ", "
    members, depth, start = [], 0, 0
    for n, character in enumerate(kind):
        depth += (character in "[(") - (character in "])")
        if depth == 0 and kind.startswith(separator, n):
            members.append(kind[start:n])
            start = n + len(separator)
    return [*members, kind[start:]]
