"""Logging in and out, passwords, invitations, API tokens, over loopback, on every kind of stores."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from apps.upload.accounts import ADDRESS_ATTEMPT_TIME, ADDRESS_ATTEMPTS, ATTEMPT_TIME, ATTEMPTS
from tests.upload.conftest import Start
from tests.upload.harness import Answer, App, BackEnd, SQLiteBackEnd, form, session_of

PASSWORD = "correct horse"


def _log_in(app: App, account: tuple[str, str]) -> Answer:
    return app.post("/login", user=account[0], password=account[1])


# --- Sessions ---------------------------------------------------------------------------------


def test_login_gives_a_session_and_logout_ends_it(app: App, account: tuple[str, str]) -> None:
    answer = _log_in(app, account)
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie and "Secure" not in cookie
    session = session_of(answer)
    assert app.put("mine", b"x", session).status == 201
    assert app.ask("POST", "/logout", session=session).status == 204
    assert app.ask("GET", "/uploads", session=session).status == 401


def test_login_by_a_form(app: App, account: tuple[str, str]) -> None:
    body = urlencode(dict(zip(("user", "password"), account, strict=True)))
    answer = app.ask("POST", "/login", body, Content_Type="application/x-www-form-urlencoded")
    assert answer.status == 200


def test_uploads_are_the_accounts_not_the_sessions(app: App, account: tuple[str, str]) -> None:
    sessions = [session_of(_log_in(app, account)) for _ in "12"]
    upload = app.put("mine", b"x", sessions[0]).json
    assert app.ask("GET", upload["url"], session=sessions[1]).body == b"x"


@pytest.mark.parametrize("password", ["", "pass word", "pass wörd ", "p" * 5000])
def test_login_with_a_wrong_password_is_refused(app: App, account: tuple[str, str], password: str) -> None:
    answer = app.post("/login", user=account[0], password=password)
    assert answer.status == 401
    assert "Set-Cookie" not in answer.headers


def test_login_of_an_unknown_user_is_refused_in_the_same_words(app: App, account: tuple[str, str]) -> None:
    wrong, unknown = (app.post("/login", user=user, password="x") for user in (account[0], "nobody"))
    assert (wrong.status, wrong.body) == (unknown.status, unknown.body)


@pytest.mark.parametrize("name", ["", "\\ud800", "\\u0000", "🦆", "n" * 2000])
def test_login_of_a_name_that_no_user_can_have_is_refused(app: App, name: str) -> None:
    assert app.ask("POST", "/login", f'{{"user": "{name}", "password": "x"}}'.encode()).status == 401


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"user": 1, "password": "x"}', '{"user": "x"'])
def test_login_needs_user_and_password(app: App, body: str) -> None:
    assert app.ask("POST", "/login", body).status == 400


def test_logout_everywhere_ends_all_of_a_users_sessions(app: App, account: tuple[str, str]) -> None:
    one, two = (session_of(_log_in(app, account)) for _ in "12")
    other = app.log_in()
    assert app.ask("POST", "/logout?everywhere=1", session="nobodys").status == 401
    assert app.ask("POST", "/logout?everywhere=1", session=one).status == 204
    assert [app.ask("GET", "/uploads", session=session).status for session in (one, two, other)] == [401, 401, 200]


def test_cookie_is_secure_where_a_trusted_proxy_speaks_tls(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--proxies", "127.0.0.0/8")
    app.post("/login", invitation=app.invitation(), password=PASSWORD)
    body = f'{{"user": "admin", "password": "{PASSWORD}"}}'
    fields = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "files.example", "Origin": "https://files.example"}
    assert "Secure" in app.ask("POST", "/login", body, **fields).headers["Set-Cookie"]
    assert "Secure" not in app.ask("POST", "/login", body).headers["Set-Cookie"]


def test_a_proxy_that_is_not_trusted_is_not_believed(app: App, account: tuple[str, str]) -> None:
    body = f'{{"user": "{account[0]}", "password": "{account[1]}"}}'
    assert "Secure" not in app.ask("POST", "/login", body.encode(), X_Forwarded_Proto="https").headers["Set-Cookie"]


# --- Too many wrong passwords -----------------------------------------------------------------


def _at_once(attempt: Callable[[int], Answer], count: int, burst: int, interval: float) -> list[Answer]:
    """The refusals of so many attempts: all after a burst, but for one for each interval that has passed meanwhile."""
    begun = time.monotonic()
    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(attempt, range(count)))
    gained = int((time.monotonic() - begun) / interval)
    refused = [answer for answer in answers if answer.status != 401]
    assert {answer.status for answer in refused} <= {429}
    assert count - burst - gained <= len(refused) <= count - burst
    return refused


def test_too_many_wrong_passwords_are_not_looked_at(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    app.post("/login", invitation=app.invitation(), password=PASSWORD)
    refused = _at_once(lambda _: app.post("/login", user="admin", password="wrong"), 20, ATTEMPTS, ATTEMPT_TIME)
    assert {int(answer.headers["Retry-After"]) for answer in refused} <= set(range(1, 7))
    assert app.post("/login", user="another", password=PASSWORD).status == 401


def test_workers_count_wrong_passwords_together(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--workers", "3")
    _at_once(lambda _: app.post("/login", user="admin", password="wrong"), 30, ATTEMPTS, ATTEMPT_TIME)


def test_right_passwords_are_never_too_many(app: App, account: tuple[str, str]) -> None:
    for _ in range(15):
        assert _log_in(app, account).status == 200


def test_too_many_wrong_passwords_from_one_address_for_many_names(start: Start) -> None:
    app = start(SQLiteBackEnd(), "--proxies", "127.0.0.1")

    def attempt(address: str) -> Answer:
        name = address.replace(":", "-")
        body = f'{{"user": "{name}", "password": "wrong"}}'
        return app.ask("POST", "/login", body, X_Forwarded_For=address)

    # Who has one IPv6 address has 2 ** 64 of them.
    _at_once(lambda number: attempt(f"2001:db8::{number}"), 50, ADDRESS_ATTEMPTS, ADDRESS_ATTEMPT_TIME)
    assert attempt("2001:db8:0:1::1").status == attempt("192.0.2.2").status == 401


# --- Changing the password ---------------------------------------------------------------------


def test_change_of_the_password_ends_the_other_sessions(app: App, account: tuple[str, str]) -> None:
    one, two = (session_of(_log_in(app, account)) for _ in "12")
    answer = app.post("/password", one, old=account[1], new=PASSWORD)
    assert answer.json == {"user": account[0]}
    statuses = [app.ask("GET", "/uploads", session=session).status for session in (one, two, session_of(answer))]
    assert statuses == [401, 401, 200]
    assert _log_in(app, account).status == 401
    assert _log_in(app, (account[0], PASSWORD)).status == 200


def test_change_of_the_password_needs_the_old_one_and_a_usable_new_one(app: App, account: tuple[str, str]) -> None:
    session = session_of(_log_in(app, account))
    assert app.post("/password", old=account[1], new=PASSWORD).status == 401
    assert app.post("/password", session, old="wrong", new=PASSWORD).status == 403  # 401 would say: no session
    answer = app.post("/password", session, old=account[1], new="seven b")
    assert (answer.status, answer.json["error"]) == (400, "a password needs 8 to 1024 bytes")
    assert app.post("/password", session, old=account[1], new="p" * 1025).status == 400
    assert app.ask("GET", "/uploads", session=session).status == 200


# --- Invitations --------------------------------------------------------------------------------


def test_invitation_of_the_first_start_lets_one_choose_a_password_once(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    token = app.invitation()
    assert app.post("/login", user="admin", password="none").status == 401
    assert app.post("/login", invitation=token, password="short").status == 400
    assert app.ask("GET", "/uploads", session=session_of(app.post("/login", invitation=token, password=PASSWORD))).json
    again = app.post("/login", invitation=token, password="another password")
    assert (again.status, again.json["error"]) == (401, "this link was used before, or is too old")
    assert _log_in(app, ("admin", PASSWORD)).json == {"user": "admin"}
    assert back_end.ask(app, "SELECT * FROM invitations") == []


def test_invitation_is_accepted_by_one_of_two_who_come_at_once(start: Start, back_end: BackEnd) -> None:
    app = start(back_end, "--workers", "2")
    token = app.invitation()
    passwords = [f"password {number}" for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda word: app.post("/login", invitation=token, password=word), passwords))
    assert sorted(answer.status for answer in answers) == [200, 401, 401, 401]
    logins = [_log_in(app, ("admin", word)).status for word in passwords]
    assert logins == [answer.status for answer in answers]


def test_invitation_expires(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    token = app.invitation()
    back_end.ask(app, f"UPDATE invitations SET expires = {0 if isinstance(back_end, SQLiteBackEnd) else 20200101}")
    assert app.post("/login", invitation=token, password=PASSWORD).status == 401


def test_only_the_digest_of_an_invitation_is_stored(start: Start, back_end: BackEnd) -> None:
    app = start(back_end)
    digest = hashlib.sha256(app.invitation().encode()).hexdigest()
    assert back_end.ask(app, "SELECT digest, user_id FROM invitations") == [(digest, 1)]


# --- API tokens ------------------------------------------------------------------------------------


def _new_token(app: App, session: str, name: str = "backup") -> str:
    answer = app.post("/tokens", session, name=name)
    assert (answer.status, answer.headers["Cache-Control"]) == (201, "no-store")
    token: str = answer.json["token"]
    return token


def test_token_works_on_every_way_in_and_out(app: App) -> None:
    session = app.log_in()
    bearer = {"Authorization": f"Bearer {_new_token(app, session)}"}
    assert app.ask("PUT", "/upload/put", b"1", **bearer).status == 201
    body, kind = form(("form", b"2"))
    assert app.ask("POST", "/upload", body, Content_Type=kind, **bearer).status == 201
    answer = app.ask(
        "POST", "/files/", b"3", Tus_Resumable="1.0.0", Upload_Length="1",
        Content_Type="application/offset+octet-stream", Upload_Metadata="filename dHVz", **bearer,
    )  # fmt: skip
    assert answer.status == 201
    uploads = app.ask("GET", "/uploads", **bearer).json["uploads"]
    assert [upload["name"] for upload in uploads] == ["tus", "form", "put"]
    assert [app.ask("GET", upload["url"], **bearer).body for upload in uploads] == [b"3", b"2", b"1"]
    assert app.ask("GET", "/uploads", session=session).json["uploads"] == uploads
    assert app.ask("DELETE", uploads[0]["url"], **bearer).status == 204


def test_only_the_digest_of_a_token_is_stored(app: App) -> None:
    token = _new_token(app, app.log_in(4712))
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert app.back_end.ask(app, "SELECT name, digest FROM tokens WHERE user_id = 4712") == [("backup", digest)]


def test_tokens_are_listed_and_deleted(app: App) -> None:
    session, other = app.log_in(), app.log_in()
    tokens = [_new_token(app, session, name) for name in ("one", "two")]
    listed = app.ask("GET", "/tokens", session=session).json["tokens"]
    assert [token["name"] for token in listed] == ["one", "two"]
    assert set(listed[0]) == {"id", "name", "created_at"}
    assert app.ask("GET", "/tokens", session=other).json == {"tokens": []}
    path = f"/tokens/{listed[0]['id']}"
    for asker, statuses in ((other, [200, 200]), (session, [401, 200])):
        assert app.ask("DELETE", path, session=asker).status == 204
        assert [app.ask("GET", "/uploads", Authorization=f"Bearer {token}").status for token in tokens] == statuses
    assert app.ask("DELETE", "/tokens/%F0%9F%A6%86", session=session).status == 404


def test_token_can_neither_make_another_nor_change_the_password(app: App) -> None:
    bearer = {"Authorization": f"bearer {_new_token(app, app.log_in())}"}
    assert app.ask("GET", "/uploads", **bearer).status == 200
    assert app.ask("POST", "/tokens", b'{"name": "x"}', **bearer).status == 401
    assert app.ask("POST", "/password", b'{"old": "x", "new": "yyyyyyyy"}', **bearer).status == 401


@pytest.mark.parametrize("token", ["", "coro_wrong", "x" * 1000, "\xff"])
def test_wrong_token_is_refused_even_with_a_session(app: App, token: str) -> None:
    answer = app.ask("GET", "/uploads", session=app.log_in(), Authorization=f"Bearer {token}")
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_authorization_for_a_proxy_does_not_matter(app: App) -> None:
    assert app.ask("GET", "/uploads", session=app.log_in(), Authorization="Basic eDp5").status == 200
