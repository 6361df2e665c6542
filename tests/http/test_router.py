"""From method and path to a handler, and the refusals when there is none."""

from __future__ import annotations

import pytest

from coro.http import Handler, HTTPError, Request, Response, Router
from coro.task import Coro
from tests.http.conftest import Serve
from tests.http.serving import get


def named(name: str) -> Router:
    """A router with one route."""
    router = Router()
    router.add("GET", name, params)
    return router


def params(request: Request) -> Coro[Response]:
    yield from ()
    return Response.json(dict(request.params))


def saying(text: str) -> Handler:
    def handle(request: Request) -> Coro[Response]:
        yield from ()
        return Response(200, text)

    return handle


@pytest.fixture
def router() -> Router:
    router = Router()
    for method, path in (
        ("GET", "/"), ("GET", "/files"), ("POST", "/files"), ("GET", "/files/new"), ("GET", "/files/{id}"),
        ("DELETE", "/files/{id}"), ("PUT", "/files/{name}/text"), ("PATCH", "/files/{other}"),
    ):  # fmt: skip
        router.add(method, path, saying(f"{method} {path}"))
    return router


@pytest.mark.parametrize(
    ("method", "target", "route"),
    [
        ("GET", "/", "GET /"),
        ("GET", "/files", "GET /files"),
        ("GET", "/files?a=/b", "GET /files"),
        ("POST", "/files", "POST /files"),
        ("GET", "/files/7", "GET /files/{id}"),
        ("GET", "/files/new", "GET /files/new"),
        ("DELETE", "/files/new", "DELETE /files/{id}"),
        ("PATCH", "/files/7", "PATCH /files/{other}"),
        ("PUT", "/files/7/text", "PUT /files/{name}/text"),
    ],
)
def test_finds_the_handler(serve: Serve, router: Router, method: str, target: str, route: str) -> None:
    assert serve(router.handle).ask(get(target, method=method)).body == route.encode()


@pytest.mark.parametrize(
    "target", ["/file", "/files/", "/files/7/", "/files/7/8", "//files", "/Files", "/files/7/text/8"]
)
def test_unknown_path_is_404(serve: Serve, router: Router, target: str) -> None:
    answer = serve(router.handle).ask(get(target))
    assert (answer.status, answer["allow"]) == (404, "")


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("DELETE", "/files", "GET, HEAD, OPTIONS, POST"),
        ("PUT", "/files/7", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("GET", "/files/7/text", "OPTIONS, PUT"),
        ("HEAD", "/files/7/text", "OPTIONS, PUT"),
    ],
)
def test_unknown_method_is_405_and_told_what_is_allowed(
    serve: Serve, router: Router, method: str, target: str, allow: str
) -> None:
    answer = serve(router.handle).ask(get(target, method=method))
    assert (answer.status, answer["allow"]) == (405, allow)


def test_options_tells_what_is_allowed(serve: Serve, router: Router) -> None:
    answer = serve(router.handle).ask(get("/files/new", method="OPTIONS"))
    assert (answer.status, answer["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH")


def test_options_of_an_unknown_path_is_404(serve: Serve, router: Router) -> None:
    assert serve(router.handle).ask(get("/nothing", method="OPTIONS")).status == 404


def test_options_of_the_whole_server_is_answered(serve: Serve, router: Router) -> None:
    answer = serve(router.handle).ask(get("*", method="OPTIONS"))
    assert (answer.status, answer["allow"]) == (204, "")


def test_head_falls_to_get(serve: Serve, router: Router) -> None:
    answer = serve(router.handle).ask(get("/files/7", method="HEAD"))
    assert (answer.status, answer["content-length"]) == (200, str(len("GET /files/{id}")))


def test_a_handler_of_its_own_for_head_or_options_comes_first(serve: Serve, router: Router) -> None:
    router.add("HEAD", "/files", saying("four"))
    router.add("OPTIONS", "/files", saying("seven"))
    service = serve(router.handle)
    assert service.ask(get("/files", method="HEAD"))["content-length"] == "4"
    assert service.ask(get("/files", method="OPTIONS")).body == b"seven"


@pytest.mark.parametrize(
    ("path", "target", "found"),
    [
        ("/{a}", "/x", '{"a":"x"}'),
        ("/{a}", "/%C3%A9%2F%25", '{"a":"é/%"}'),
        ("/{a}", "/..", '{"a":".."}'),
        ("/{a}/{b}", "/x/y", '{"a":"x","b":"y"}'),
        ("/{a}.{b}", "/x.y.z", '{"a":"x.y","b":"z"}'),
        ("/v(1)/{a}+", "/v(1)/x+", '{"a":"x"}'),
        ("/a.b", "/a.b", "{}"),
    ],
)
def test_parameters_are_one_decoded_segment_each(serve: Serve, path: str, target: str, found: str) -> None:
    assert serve(named(path).handle).ask(get(target)).body.decode() == found


@pytest.mark.parametrize(("path", "target"), [("/{a}", "/"), ("/a.b", "/axb"), ("/{a}.b", "/xzb"), ("/{a}", "/x/y")])
def test_patterns_are_no_regular_expressions(serve: Serve, path: str, target: str) -> None:
    assert serve(named(path).handle).ask(get(target)).status == 404


@pytest.mark.parametrize("path", ["/", "/{a}"])
def test_second_handler_for_one_route_is_an_error(path: str) -> None:
    router = named(path)
    router.add("PUT", path, params)
    with pytest.raises(ValueError, match=f"GET {path} has a handler already".replace("{", r"\{")):
        router.add("GET", path, params)


def test_errors_name_the_path(serve: Serve, router: Router) -> None:
    answer = serve(router.handle).ask(get("/%C3%A9"))
    assert answer.body.decode() == '{"error":"there is nothing at /é"}'
    assert HTTPError(404).response().body == b'{"error":"Not Found"}'
