"""What an `HTTPError` looks like: a small page for browsers, JSON for everybody else."""

from __future__ import annotations

from html import escape

from coro.http.message import PHRASES, HTTPError, Request, Response

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 20vh auto; padding: 0 1rem }}</style>
<h1>{title}</h1>
<p>{message}</p>
</html>
"""
# The page can be made to do nothing and to load nothing, whatever the message says.
POLICY = ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
VARY = ("Vary", "Accept")  # a cache must not give the one to who asks for the other


def error_page(request: Request, error: HTTPError) -> Response:
    """The error's status and message: as HTML for who asks for pages (`Accept: text/html`), else as JSON."""
    if "text/html" not in request.headers.get("accept", "").lower():
        return Response.json({"error": str(error)}, error.status, [*error.headers, VARY])
    title = f"{error.status} {PHRASES.get(error.status, '')}".rstrip()
    page = PAGE.format(title=escape(title), message=escape(str(error)))
    body = page.encode(errors="replace")  # what is no text came from the client
    return Response(error.status, body, [*error.headers, POLICY, VARY], "text/html; charset=utf-8")
