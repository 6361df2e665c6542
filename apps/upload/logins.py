"""The requests about accounts: logging in and out, passwords, API tokens.

| request             | answer                                                                                         |
|---------------------|------------------------------------------------------------------------------------------------|
| `POST /login`       | `user` and `password`, or `invitation` and a chosen `password`: 200 and the session's cookie   |
| `GET /session`      | 200, `{"user"}`: who is logged in, null if nobody is                                           |
| `POST /logout`      | 204; with `?everywhere=1` every session of the user ends                                       |
| `POST /password`    | `old` and `new`: 200 and a new session; all others end. 403 if `old` is wrong                  |
| `GET /tokens`       | 200, `{"tokens": [{"id", "name", "created_at"}, ...]}`                                         |
| `POST /tokens`      | `name`: 201, `{"token"}`: what a script sends in `Authorization: Bearer`; it is shown once     |
| `DELETE /tokens/ID` | 204                                                                                            |

Bodies are JSON or forms. Who shows an API token cannot make another, nor change the password.
"""

from __future__ import annotations

import math
from typing import Any

from apps.upload.accounts import Accounts, TooManyAttempts, UnusablePassword
from apps.upload.names import checked_name
from apps.upload.store import MAX_TOKEN_LENGTH, SESSION_TIME, Sessions
from coro import Coro
from coro.http import Answer, HTTPError, Request, Response, Router, set_cookie

MAX_BODY_SIZE = 8192  # bytes


class LoginHandlers:
    """Who is it, and the requests that change that."""

    def __init__(self, router: Router, sessions: Sessions, accounts: Accounts) -> None:
        self.sessions = sessions
        self.accounts = accounts
        router.add("POST", "/login", self.login)
        router.add("GET", "/session", self.session)
        router.add("POST", "/logout", self.logout)
        router.add("POST", "/password", self.change_password)
        router.add("GET", "/tokens", self.list_tokens)
        router.add("POST", "/tokens", self.add_token)
        router.add("DELETE", "/tokens/{id}", self.delete_token)

    def user(self, request: Request) -> Coro[int]:
        """The id of the user who asks, by session or API token. `HTTPError` 401."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":  # another scheme's is meant for a proxy before us
            return self._user_of_session(request)
        return self._user_of_token(token)

    def _user_of_token(self, token: str) -> Coro[int]:
        user_id = (yield from self.accounts.find_token(token)) if len(token) <= MAX_TOKEN_LENGTH else None
        if user_id is None:
            raise HTTPError(401, "there is no such API token", [("WWW-Authenticate", "Bearer")])
        return user_id

    def _user_of_session(self, request: Request) -> Coro[int]:
        user_id = yield from self._find_user(request)
        if user_id is None:
            raise HTTPError(401, "log in first")
        return user_id

    def _find_user(self, request: Request) -> Coro[int | None]:
        token = request.cookies.get("session", "")
        return (yield from self.sessions.lookup(token)) if 0 < len(token) <= MAX_TOKEN_LENGTH else None

    def login(self, request: Request) -> Coro[Answer]:
        fields = yield from _fields(request)
        password = _text(fields, "password")
        if "invitation" in fields:
            token = _text(fields, "invitation")
            user_id = yield from self._chosen(self.accounts.accept(token, password))
            if user_id is None:
                raise HTTPError(401, "this link was used before, or is too old")
        else:
            wrong = HTTPError(401, "the user name or the password is wrong")
            user_id = yield from self._checked(request, _text(fields, "user"), password, wrong)
        return (yield from self._new_session(request, user_id))

    def session(self, request: Request) -> Coro[Answer]:
        user_id = yield from self._find_user(request)
        name = None if user_id is None else (yield from self.accounts.name_of(user_id))
        return Response.json({"user": name}, headers=[("Cache-Control", "no-store")])

    def logout(self, request: Request) -> Coro[Answer]:
        if request.query.get("everywhere") == "1":
            user_id = yield from self._user_of_session(request)
            yield from self.sessions.delete_all(user_id)
        token = request.cookies.get("session", "")
        if 0 < len(token) <= MAX_TOKEN_LENGTH:
            yield from self.sessions.delete(token)
        return Response(204, headers=[_cookie(request, "", 0)])

    def change_password(self, request: Request) -> Coro[Answer]:
        user_id = yield from self._user_of_session(request)
        fields = yield from _fields(request)
        name = yield from self.accounts.name_of(user_id)
        wrong = HTTPError(403, "the old password is wrong")  # 401 would say that there is no session
        yield from self._checked(request, name, _text(fields, "old"), wrong)
        yield from self._chosen(self.accounts.set_password(user_id, _text(fields, "new")))
        return (yield from self._new_session(request, user_id))

    def list_tokens(self, request: Request) -> Coro[Answer]:
        user_id = yield from self._user_of_session(request)
        tokens = yield from self.accounts.list_tokens(user_id)
        return Response.json({"tokens": [token._asdict() for token in tokens]})

    def add_token(self, request: Request) -> Coro[Answer]:
        user_id = yield from self._user_of_session(request)
        name = checked_name(_text((yield from _fields(request)), "name"))
        token = yield from self.accounts.add_token(user_id, name)
        return Response.json({"token": token}, 201, [("Cache-Control", "no-store")])

    def delete_token(self, request: Request) -> Coro[Answer]:
        user_id = yield from self._user_of_session(request)
        token_id = request.params["id"]
        if not (token_id.isascii() and token_id.isdigit() and len(token_id) < 19):
            raise HTTPError(404, "there is no such token")
        yield from self.accounts.delete_token(user_id, int(token_id))
        return Response(204)

    def _checked(self, request: Request, name: str, password: str, wrong: HTTPError) -> Coro[int]:
        """The user's id, if the password is right. `wrong`, `HTTPError` 429."""
        try:
            user = yield from self.accounts.check(name, password, request.client)
        except TooManyAttempts as error:
            raise HTTPError(429, str(error), [("Retry-After", str(math.ceil(error.seconds)))]) from None
        if user is None:
            raise wrong
        return user.id

    def _chosen(self, change: Coro[Any]) -> Coro[Any]:
        try:
            return (yield from change)
        except UnusablePassword as error:
            raise HTTPError(400, str(error)) from None

    def _new_session(self, request: Request, user_id: int) -> Coro[Answer]:
        token = yield from self.sessions.create(user_id)
        name = yield from self.accounts.name_of(user_id)
        return Response.json({"user": name}, headers=[_cookie(request, token, SESSION_TIME)])


def _cookie(request: Request, token: str, seconds: int) -> tuple[str, str]:
    return set_cookie("session", token, max_age=seconds, secure=request.scheme == "https")


def _fields(request: Request) -> Coro[dict[str, Any]]:
    """The body's fields, from JSON or a form. `HTTPError` 400."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields: Any
    if kind == "application/x-www-form-urlencoded":
        fields = yield from request.form(MAX_BODY_SIZE)
    else:
        fields = yield from request.json(MAX_BODY_SIZE)
    return fields if isinstance(fields, dict) else {}


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise HTTPError(400, f"the body needs `{name}`")
    return value
