"""Who may reach the server over HTTP, and with which token."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from needs import STARLETTE, needed

needed("starlette", STARLETTE)
from fvs_ros.http_access import BearerToken, HttpAccessError, checked_token, is_loopback

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.4", False), ("robot.local", False), ("", False)],
)  # fmt: skip
def test_only_the_loopback_needs_no_token(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    if loopback:
        assert checked_token(None, host) is None
    else:
        with pytest.raises(HttpAccessError, match="is no loopback address"):
            checked_token(None, host)
    assert checked_token(TOKEN, host) == TOKEN


@pytest.mark.parametrize("token", ["", "short", TOKEN[:15], f"{TOKEN} a", f"{TOKEN}\n", f"{TOKEN}ü"])
def test_a_token_that_is_easily_guessed_or_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(HttpAccessError, match="takes at least 16 printable ASCII"):
        checked_token(token, "127.0.0.1")


def status(*headers: tuple[bytes, bytes], kind: str = "http") -> int:
    """The status that a request with those headers gets; 200 where it is let through."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a request without the token must not be read")

    scope = {"type": kind, "headers": headers, "method": "POST", "path": "/mcp"}
    asyncio.run(BearerToken(app, TOKEN)(scope, receive, send))
    code: int = sent[0]["status"]
    return code


def test_a_request_needs_the_token_and_nothing_but_it() -> None:
    right = (b"authorization", f"Bearer {TOKEN}".encode())
    assert status(right) == 200
    assert status(kind="lifespan") == 200
    for headers in (
        [],
        [(b"authorization", TOKEN.encode())],
        [(b"authorization", f"Bearer {TOKEN}x".encode())],
        [(b"authorization", f"Bearer {TOKEN[:-1]}".encode())],
        [(b"authorization", b"Bearer \xff\xfe")],
        [right, (b"authorization", b"Bearer another")],
        [(b"x-authorization", right[1])],
    ):
        assert status(*headers) == 401
