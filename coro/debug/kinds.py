"""Kinds of waits, for sums: "Redis", "MySQL", "disk", "client", ... where the words of a request say each single one.

A request's class may name its kind itself, in an attribute `kind`. A wait for a descriptor or for a permit is of the
kind of the module that waits, which is the innermost one in the task's `yield from` chain that has a kind.
"""

from __future__ import annotations

import os
from types import CodeType
from typing import Any

from coro.debug.waits import generators
from coro.group import TaskGroup
from coro.io import Readable, Writable
from coro.sync import WaitQueue
from coro.task import Join, Request, Task
from coro.threads import Limiter, _ThreadCall
from coro.timing import Forever, Sleep

BY_TYPE: dict[type[Request], str] = {Sleep: "sleep", Forever: "event", Join: "tasks", TaskGroup: "tasks"}
ROOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
BY_MODULE = (("mysql/", "MySQL"), ("redis/", "Redis"), ("http/client/", "HTTP server"), ("http/", "client"))

_of_code: dict[CodeType, str] = {}


def kind_of(task: Task[Any], request: Request) -> str:
    """The kind of what a task waits for now."""
    kind = getattr(request, "kind", None) or BY_TYPE.get(type(request))
    if kind is not None:
        return str(kind)
    if isinstance(request, (Readable, Writable)):
        return _of_chain(task) or "socket"
    if isinstance(request, _ThreadCall):
        return _limiter_name(task, request._limiter)
    if isinstance(request, WaitQueue):
        where = _of_chain(task)
        if hasattr(request, "give_back"):
            return "free thread" if request.what == Limiter._what else f"{where} pool" if where else "lock"
        return where or "event"
    module = type(request).__module__
    return "Redis" if module.startswith("coro.redis") else "MySQL" if module.startswith("coro.mysql") else "other"


def _limiter_name(task: Task[Any], limiter: Limiter) -> str:
    limiters: dict[str, Limiter] = task.loop.locals.get(Limiter, {})
    return next((name for name, known in limiters.items() if known is limiter), "thread")


def _of_chain(task: Task[Any]) -> str:
    found = ""
    for generator in generators(task):
        code = generator.gi_code
        kind = _of_code.get(code)
        if kind is None:
            kind = _of_code[code] = _of_file(code.co_filename)
        found = kind or found
    return found


def _of_file(path: str) -> str:
    if path.startswith(ROOT):
        for beginning, kind in BY_MODULE:
            if path[len(ROOT) :].startswith(beginning):
                return kind
    return ""


def code_of(task: Task[Any]) -> CodeType:
    """The function that a task runs."""
    generator: Any = task.generator
    code: CodeType = generator.gi_code
    return code
