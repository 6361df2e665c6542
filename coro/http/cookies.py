"""Setting cookies (RFC 6265). What a client sends back is in `Request.cookies`."""

from __future__ import annotations

import re
from typing import Literal

NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*")  # section 4.1.1: no space, quote, comma, semicolon, backslash
ATTRIBUTE = re.compile(r"[ -:<-~]*")


def set_cookie(
    name: str,
    value: str,
    *,
    max_age: int | None = None,
    path: str = "/",
    domain: str | None = None,
    secure: bool = True,
    http_only: bool = True,
    same_site: Literal["Strict", "Lax", "None"] = "Lax",
) -> tuple[str, str]:
    """The header field that sets a cookie: `Response(200, text, [set_cookie("session", token, max_age=3600)])`.

    Browsers send it over TLS only (`secure`), show it to no script (`http_only`), and leave it out of what other
    sites' pages make them send (`same_site`), unless told otherwise. `max_age` in seconds: 0 removes it, None keeps it
    as long as the browser runs. ValueError for what cannot stand in a cookie: encode it first.
    """
    if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
        raise ValueError(f"{name!r} or its value has characters that cannot stand in a cookie")
    if not ATTRIBUTE.fullmatch(path) or (domain is not None and not ATTRIBUTE.fullmatch(domain)):
        raise ValueError(f"the path or the domain of cookie {name!r} has characters that would end it")
    if same_site == "None" and not secure:
        raise ValueError(f"cookie {name!r}: browsers take SameSite=None together with Secure only")
    parts = [f"{name}={value}", f"Path={path}"]
    if domain is not None:
        parts.append(f"Domain={domain}")
    if max_age is not None:
        parts.append(f"Max-Age={max_age}")
    parts += ["Secure"] * secure + ["HttpOnly"] * http_only + [f"SameSite={same_site}"]
    return "Set-Cookie", "; ".join(parts)
