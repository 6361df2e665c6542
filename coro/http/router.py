"""From method and path to a handler. `{name}` in a pattern stands for one segment of the path, percent-decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from coro.http.message import Answer, Handler, HTTPError, Request, Response
from coro.task import Coro

PARAMETER = re.compile(r"\{(\w+)\}")


class Router:
    """Routes, tried in the order in which they were added; paths without parameters first."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Handler]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Handler]]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Have `handler` answer `method` on `path`, as in add("GET", "/files/{id}", show). GET answers HEAD too."""
        if "{" not in path:
            methods = self._exact.setdefault(path, {})
        else:
            parts = PARAMETER.split(path)  # text, name, text, name, ..., text
            expression = re.escape(parts[0])
            for name, text in zip(parts[1::2], parts[2::2], strict=True):
                expression += f"(?P<{name}>[^/]+){re.escape(text)}"
            pattern = re.compile(expression)
            methods = next((known for same, known in self._patterns if same == pattern), {})
            if not methods:
                self._patterns.append((pattern, methods))
        if method in methods:
            raise ValueError(f"{method} {path} has a handler already")
        methods[method] = handler

    def handle(self, request: Request) -> Coro[Answer]:
        """A handler: the one that is due for the request. `HTTPError` 404, or 405 with `Allow`."""
        head = request.head
        path, method = head.target.partition("?")[0], head.method
        exact = self._exact.get(path)
        if exact is not None and method in exact:
            return exact[method](request)
        allowed: set[str] = set()
        for methods, params in self._find(path):
            handler = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
            if handler is not None:
                if params:
                    request.params = {name: unquote(value) for name, value in params.items()}
                return handler(request)
            allowed.update(methods)
        if path == "*":
            return _options("")  # RFC 9110, section 9.3.7: it asks for nothing but an answer
        if not allowed:
            raise HTTPError(404, f"there is nothing at {request.path}")
        allow = ", ".join(sorted({*allowed, "OPTIONS", *({"HEAD"} if "GET" in allowed else ())}))
        if method == "OPTIONS":
            return _options(allow)
        raise HTTPError(405, f"{method} is not allowed here; allowed: {allow}", [("Allow", allow)])

    def _find(self, path: str) -> Iterator[tuple[dict[str, Handler], dict[str, str]]]:
        """What the path fits, with the values of the parameters."""
        if path in self._exact:
            yield self._exact[path], {}
        for pattern, methods in self._patterns:
            found = pattern.fullmatch(path)
            if found is not None:
                yield methods, found.groupdict()


def _options(allow: str) -> Coro[Answer]:
    yield from ()
    return Response(204, headers=[("Allow", allow)] if allow else ())
