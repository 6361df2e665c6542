"""A call that is never driven, found at run time: which statements are an error, and that all others stay the same."""

from __future__ import annotations

import ast
import sys
import traceback
from collections.abc import Callable, Generator
from textwrap import dedent, indent
from types import FrameType
from typing import Any

import pytest

import coro
from coro import undriven
from coro.undriven import NotDriven


def program(source: str, rewritten: bool = True) -> dict[str, Any]:
    """The names of a module that was run, rewritten or as it stands."""
    tree = ast.parse(dedent(source), "program.py")
    if rewritten:
        undriven.rewrite(tree)
    names: dict[str, Any] = {"save": save, "__name__": "program"}
    exec(compile(tree, "program.py", "exec", dont_inherit=True), names)
    return names


def save(*arguments: object, **options: object) -> Generator[None, None, None]:
    yield


def function(body: str) -> Callable[..., Any]:
    result: Callable[..., Any] = program("def work(*arguments):\n" + indent(dedent(body), "    "))["work"]
    return result


def test_dropping_a_fresh_generator_is_an_error_that_names_the_call_and_the_mend() -> None:
    with pytest.raises(NotDriven) as caught:
        function("save(1)")()
    assert str(caught.value) == (
        "save(...) is called but never driven, so nothing of it runs: write `yield from save(...)`"
    )


def test_error_is_raised_at_the_line_of_the_call() -> None:
    work = function("""
        pass
        save(
            1,
        )
    """)
    with pytest.raises(NotDriven) as caught:
        work()
    last = traceback.extract_tb(caught.tb)[-1]
    assert (last.filename, last.name, last.lineno) == ("program.py", "work", 4)


def test_error_is_one_of_coro_and_a_runtime_error() -> None:
    assert issubclass(NotDriven, coro.CoroError)
    assert issubclass(NotDriven, RuntimeError)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ("save()", "save()"),
        ("save(x=1)", "save(...)"),
        ("a.b.save(1)", "a.b.save(...)"),
        ("a.b(1).save()", "a.b(...).save()"),
        ("a[0].save(1)", "a[0].save(...)"),
    ],
)
def test_error_shows_the_call_without_its_arguments(call: str, shown: str) -> None:
    statement = ast.parse(call).body[0]
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert undriven.shown(statement.value) == shown


@pytest.mark.parametrize("source", ["save(1)", "def work():\n class Inner: save(1)\nwork()"])
def test_where_nothing_can_be_yielded_the_mend_is_to_run_it(source: str) -> None:
    with pytest.raises(NotDriven, match=r"write `coro\.run\(save\(\.\.\.\)\)`"):
        program(source)


def test_dropping_what_checkpoint_returns_is_an_error() -> None:
    with pytest.raises(NotDriven, match=r"write `yield from arguments\[0\]\.checkpoint\(\)`"):
        function("arguments[0].checkpoint()")(coro)


@pytest.mark.parametrize(
    "body",
    [
        "yield from save(1)",
        "for _ in save(1): pass",
        "_ = save(1)",
        "list(save(1))",
        "[save(1)].append(save(2))",
        "(lambda: 1)()",
        "(lambda: (1, 2))()",
        "(lambda: (1,))()",
        "(lambda: ())()",
        "print",
    ],
)
def test_whatever_else_a_statement_does_is_left_alone(body: str) -> None:
    result = function(body)()
    if isinstance(result, Generator):
        assert list(result) == [None]


def test_generator_that_has_started_may_be_dropped() -> None:
    function("""
        def started():
            generator = save(1)
            next(generator)
            return generator
        started()
    """)()


def test_generator_that_has_ended_may_be_dropped() -> None:
    function("""
        def ended():
            generator = save(1)
            list(generator)
            return generator
        ended()
    """)()


def test_fresh_generator_that_somebody_else_holds_may_be_dropped() -> None:
    """It is not lost: it can still be driven."""
    jobs: dict[str, Generator[None, None, None]] = {}
    function("arguments[0].setdefault('a', save(1))")(jobs)
    assert list(jobs["a"]) == [None]


def test_fresh_generator_that_is_taken_out_and_dropped_is_an_error() -> None:
    with pytest.raises(NotDriven):
        function("arguments[0].pop()")([save(1)])


def test_dropped_value_is_asked_nothing() -> None:
    class Touchy:
        def __getattribute__(self, name: str) -> object:
            raise AssertionError(name)

        def __eq__(self, other: object) -> bool:
            raise AssertionError("==")

        def __bool__(self) -> bool:
            raise AssertionError("bool")

        __hash__ = None  # type: ignore[assignment]

    function("arguments[0]()")(Touchy)


def test_dropped_value_lives_no_longer_than_before() -> None:
    deaths: list[str] = []

    class Value:
        def __del__(self) -> None:
            deaths.append("dead")

    assert function("arguments[0](); return list(arguments[1])")(Value, deaths) == ["dead"]


def test_call_is_made_once() -> None:
    calls: list[int] = []
    function("arguments[0](1)")(calls.append)
    assert calls == [1]


BLOCKS = {
    "if": "if True: save(1)",
    "else": "if False: pass\nelse: save(1)",
    "elif": "if False: pass\nelif True: save(1)",
    "for": "for _ in [1]: save(1)",
    "for else": "for _ in []: pass\nelse: save(1)",
    "while": "while True: save(1)",
    "with": "import contextlib\nwith contextlib.nullcontext(): save(1)",
    "try": "try: save(1)\nfinally: pass",
    "except": "try: 1 / 0\nexcept ZeroDivisionError: save(1)",
    "except*": "try: 1 / 0\nexcept* ZeroDivisionError: save(1)",
    "try else": "try: pass\nexcept ValueError: pass\nelse: save(1)",
    "finally": "try: pass\nfinally: save(1)",
    "match": "match 1:\n case 1: save(1)",
    "class": "class Inner: save(1)",
    "function in a function": "def inner(): save(1)\nreturn inner()",
    "method": "class Inner:\n def inner(self): save(1)\nreturn Inner().inner()",
    "async function": "async def inner(): save(1)\nreturn inner().send(None)",
    "generator": "def inner():\n save(1)\n yield\nreturn next(inner())",
    "same line": "pass; save(1); pass",
}


@pytest.mark.parametrize("block", BLOCKS)
def test_statement_is_found_in_every_kind_of_block(block: str) -> None:
    with pytest.raises((NotDriven, ExceptionGroup)) as caught:
        function(BLOCKS[block])()
    error: BaseException = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, NotDriven)


def test_statement_is_found_however_deep_it_lies() -> None:
    depth = 90  # of `elif`, each inside the one before
    source = "if 0: pass\n" + "elif 0: pass\n" * depth + "else: save(1)"
    with pytest.raises(NotDriven):
        program(source)


TRACED = {
    "last statement": "call()",
    "many lines": "call(\n 1,\n call(\n  2),\n)\ncall()",
    "if": "if call(1):\n call(2)\nelse:\n call(3)\ncall(4)",
    "loop": "for n in range(3):\n call(n)\n if n: continue\n call(0)",
    "try": "try:\n call(1)\nexcept ValueError:\n call(2)\nelse:\n call(3)\nfinally:\n call(4)",
    "with": "with open('/dev/null') as file:\n call(file)",
    "one line": "call(1); call(2)",
    "return": "call(1)\nreturn [call(2)]",
    "generator": "yield from ()\ncall(1)\nyield 1\ncall(2)",
    "class": "class Inner:\n 'doc'\n call(1)\n def method(self): call(2)\nInner().method()",
}


@pytest.mark.parametrize("shape", TRACED)
@pytest.mark.parametrize("value", [None, 1])
def test_debuggers_and_coverage_see_the_lines_they_would_see_without_it(shape: str, value: object) -> None:
    source = "def work(call):\n" + indent(TRACED[shape], " ")

    def traced(rewritten: bool) -> list[tuple[str, str, int]]:
        work = program(source, rewritten)["work"]
        return events(lambda: list(work(lambda *arguments: value) or ()))

    assert len(traced(False)) >= 3
    assert traced(True) == traced(False)


def test_they_see_the_lines_of_the_module_too() -> None:
    source = "'doc'\n\nfrom __future__ import annotations\n\nimport sys\nprint()\n"
    assert len(events(lambda: program(source))) >= 5
    assert events(lambda: program(source)) == events(lambda: program(source, rewritten=False))


def events(run: Callable[[], object]) -> list[tuple[str, str, int]]:
    """What a debugger is told while something runs."""
    seen: list[tuple[str, str, int]] = []

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename == "program.py":
            seen.append((frame.f_code.co_name, event, frame.f_lineno))
            return trace
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return seen


def test_docstring_and_future_imports_stay_first() -> None:
    names = program("""
        'Documented.'
        from __future__ import annotations
        def work(argument: Unknown): pass
        work(1)
    """)
    assert names["__doc__"] == "Documented."
    assert names["work"].__annotations__ == {"argument": "Unknown"}


def test_module_without_call_statements_gets_nothing_added() -> None:
    assert set(program("value = 1")) == {"__builtins__", "__name__", "save", "value"}
