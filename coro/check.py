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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import coro
from coro.undriven import Function, bodies, mistake, shown

CLEAN, FOUND, NOT_CHECKED = 0, 1, 2

PLAIN = {"bool", "bytearray", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"}
REPEATABLE = ast.Name | ast.Attribute | ast.Subscript | ast.Call | ast.Constant | ast.expr_context  # on one line
SEES_ALL_NAMES = {"locals", "vars", "eval", "exec"}

# The methods of these do something at once: they queue a command. What they return need not be driven.
COLLECTS = ("coro.redis.pipeline.Pipeline[", "coro.redis.session.Transaction[")
COROUTINE = re.compile(r"(typing\.)?Generator\[(coro\.task\.Request|Any), .*\]")
CHECKPOINT = re.compile(r"[tT]uple\[coro\.task\.Request\]")
REVEALED = re.compile(r'Revealed type is "[tT]uple\[(?P<type>.*), Literal\[(?P<number>\d+)\]\?\]"')
CONDITION = re.compile(r'"(?P<function>[^"]*)" returns "Generator\[(Request|Any), [^"]*" which .* always be true')
IGNORE = re.compile(rb"#(?=\s*type:\s*ignore)")


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
    """One expression, most often a call, whose type decides whether there is a mistake."""

    call: ast.expr
    message: str  # what is wrong, if its value is a `Coro`

    @property
    def holder(self) -> str | None:
        """What the value may have been taken out of, as `jobs` in `jobs.pop(key)`."""
        if isinstance(self.call, ast.Call) and isinstance(self.call.func, ast.Attribute):
            whole = self.call.func.value
            if all(isinstance(node, REPEATABLE) for node in ast.walk(whole)):
                return ast.unparse(whole)
        return None


def main(paths: Sequence[str]) -> int:
    """Check these files, and all Python files in these folders; print what is found. The exit code.

    1 when something was found, 0 when not, 2 when it could not be checked (one line on stderr says why).
    """
    try:
        files = list(_files(paths))
        findings, gaps = check(files)
    except NotChecked as reason:
        print(f"coro: {reason}", file=sys.stderr)
        return NOT_CHECKED
    for finding in findings:
        print(finding)
    for gap in gaps:
        print(f"coro: {gap}", file=sys.stderr)
    print(f"coro: {len(files)} checked, {len(findings) or 'nothing'} found", file=sys.stderr)
    return FOUND if findings else CLEAN


def check(files: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """The mistakes in these source files, and in words what could not be judged. `NotChecked` without mypy's help."""
    if find_spec("mypy") is None:
        raise NotChecked("`coro check` needs mypy: install it next to coro, with `python -m pip install mypy`")
    asked: list[tuple[str, Question]] = []
    with tempfile.TemporaryDirectory(prefix="coro-check-") as folder:
        shadows: list[str] = []
        for path in files:
            source, encoding = _read(path)
            questions = _questions(_parse(source, path))
            if questions:
                shadow = Path(folder, f"{len(asked)}.py")
                shadow.write_text(_shadow(source, questions, len(asked)), encoding=encoding)
                shadows += ["--shadow-file", path, str(shadow)]
                asked += [(path, question) for question in questions]
        messages = _ask([*MYPY, *shadows, "--", *files]) if files else []

    types, holders = _types(messages)
    findings = {
        Finding(path, question.call.lineno, question.message)
        for number, (path, question) in enumerate(asked)
        if any(_undriven(kind, " ".join(holders[number])) for kind in types[number])
    }
    known = {os.path.realpath(path): path for path in files}
    findings.update(_conditions(messages, known))
    answered = {asked[number][0] for number in types if types[number]}
    return sorted(findings), [*_not_found(messages, known), *_passed_over({path for path, _ in asked} - answered)]


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
        for statement in body:
            match statement:
                case ast.Expr(ast.Yield(ast.Call() as call)) | ast.Assign(value=ast.Yield(ast.Call() as call)):
                    if function is not None and _coro_result(function) is not None:
                        questions.append(Question(call, f"{shown(call)} is yielded: write `yield from {shown(call)}`"))
                case ast.Assign(targets, ast.Call() as call):
                    questions += _never_read(targets, call, function)
                case ast.AnnAssign(target, value=ast.Call() as call):
                    questions += _never_read([target], call, function)
                case ast.Expr(ast.NamedExpr(target, ast.Call() as call)):
                    questions += _never_read([target], call, function)
                case ast.Expr(value):
                    for dropped in _dropped(value):
                        questions.append(Question(dropped, mistake(shown(dropped), function is not None)))
                case ast.Return(ast.Call() as call):
                    if function is not None and _returns_plain(function):
                        mend = f"write `return (yield from {shown(call)})`"
                        questions.append(Question(call, f"{shown(call)} is returned, not driven: {mend}"))
    return questions


def _never_read(targets: Sequence[ast.expr], call: ast.Call, function: Function | None) -> Iterator[Question]:
    """A call whose value is given to names that nobody reads; to one that begins with `_` it is given on purpose."""
    names = [target.id for target in targets if isinstance(target, ast.Name) and not target.id.startswith("_")]
    if function is not None and len(names) == len(targets) and not any(_is_read(name, function) for name in names):
        mend = f"write `{names[0]} = yield from {shown(call)}`"
        yield Question(call, f"{shown(call)} is never driven, {' and '.join(names)} never read: {mend}")


def _dropped(value: ast.expr) -> Iterator[ast.expr]:
    """What an expression statement drops."""
    match value:
        case ast.Call(ast.Name("next")):
            pass  # what comes out was inside before
        case ast.Call() | ast.Attribute() | ast.Name():
            yield value
        case ast.Dict(_, values):
            for element in values:
                yield from _dropped(element)
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


def _is_read(name: str, function: Function) -> bool:
    """Does the function, or one inside it, do more with the name than to assign it?"""
    for node in ast.walk(function):
        match node:
            case ast.Name(used, ast.Load() | ast.Del()) if used == name or used in SEES_ALL_NAMES:
                return True
            case ast.Global(names) | ast.Nonlocal(names) if name in names:
                return True
    return False


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

# Its cache is its own: mypy's cache of ordinary runs is of other sources. `-P`: no module of the working directory
# takes the place of one that mypy imports.
MYPY = [
    *(sys.executable, "-P", "-m", "mypy", "--output", "json", "--no-error-summary"),
    *("--check-untyped-defs", "--enable-error-code", "truthy-bool", "--cache-dir", ".mypy_cache/coro-check"),
]

Message = dict[str, Any]


def _shadow(source: str, questions: Iterable[Question], number: int) -> str:
    """The source with each question put around its call; no line moves. Numbers count up from the given one."""
    lines = [line.encode() for line in io.StringIO(source)]
    edits: list[tuple[int, int, str]] = []
    for n, question in enumerate(questions, number):
        call, holder = question.call, question.holder
        assert call.end_lineno is not None and call.end_col_offset is not None
        before, after = "reveal_type((", f", {2 * n}))"
        if holder is not None:
            before, after = f"({before}", f"{after}, reveal_type(({holder}, {2 * n + 1})))"
        edits.append((call.lineno - 1, call.col_offset, before))
        edits.append((call.end_lineno - 1, call.end_col_offset, after))
        for line in range(call.lineno - 1, call.end_lineno):  # `type: ignore` would silence the answer
            lines[line] = IGNORE.sub(b"##", lines[line])
    for line, column, text in sorted(edits, reverse=True):  # from the end, so that columns stay true
        lines[line] = lines[line][:column] + text.encode() + lines[line][column:]
    return b"".join(lines).decode()


def _ask(command: Sequence[str]) -> list[Message]:
    """Run mypy; what it has to say. `NotChecked` when it gives up."""
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    lines = done.stdout.splitlines()
    messages: list[Message] = [json.loads(line) for line in lines if line.startswith("{")]
    if done.returncode not in (0, 1):
        reasons = [f"{message['file']}:{message['line']}: {message['message']}" for message in messages]
        reasons += [*reversed(done.stderr.splitlines()), *lines, f"exit code {done.returncode}"]
        raise NotChecked(f"mypy gave up: {reasons[0]}")
    return messages


def _environment() -> dict[str, str]:
    """For mypy, which does not look where Python does: this very `coro` can be found."""
    root = Path(coro.__file__).resolve().parent.parent
    if root.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    path = os.environ.get("MYPYPATH")
    return {**os.environ, "MYPYPATH": f"{path}{os.pathsep}{root}" if path else str(root)}


# --- Reading the answers ----------------------------------------------------------------


def _types(messages: Iterable[Message]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """By the number of the question, the types of the call, and of what its value may have been taken out of."""
    types: dict[int, list[str]] = defaultdict(list)
    holders: dict[int, list[str]] = defaultdict(list)
    for message in messages:
        if answer := REVEALED.fullmatch(message["message"]):
            number, of_holder = divmod(int(answer["number"]), 2)
            (holders if of_holder else types)[number].append(answer["type"])
    return types, holders


def _conditions(messages: Iterable[Message], known: Mapping[str, str]) -> Iterator[Finding]:
    for message in messages:
        path = known.get(os.path.realpath(message["file"]))
        if path is not None and (found := CONDITION.match(message["message"])):
            call = f"{found['function'].rpartition('.')[2]}(...)"
            text = f"{call} is never driven, and as a condition always true: write `(yield from {call})`"
            yield Finding(path, message["line"], text)


def _not_found(messages: Iterable[Message], known: Mapping[str, str]) -> Iterator[str]:
    for message in messages:
        path = known.get(os.path.realpath(message["file"]))
        if path is not None and message["code"] == "import-not-found" and message["severity"] == "error":
            yield f"{path}:{message['line']}: calls into this module are not judged: {message['message']}"


def _passed_over(paths: Iterable[str]) -> Iterator[str]:
    for path in sorted(paths):
        yield f"{path}: not judged: mypy says nothing of this file (`ignore_errors` in its configuration?)"


def _undriven(kind: str, held_by: str) -> bool:
    """Is a value of this type a `Coro`, at least at times, and not one that its holder was given before?"""
    if held_by.startswith(COLLECTS):
        return False
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
