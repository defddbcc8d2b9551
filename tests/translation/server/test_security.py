"""Only requests to a name of this server, from its own page or from no page, are answered."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message

from unit.translation.server.security import HEADERS, Guard


def ask(**headers: str) -> tuple[int, bytes, dict[str, str]]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": raw}
    guard = Guard(PlainTextResponse("answered"), ["localhost", "My-Server.example"])
    asyncio.run(guard(scope, receive, send))
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], sent[1]["body"], found


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.0.0.1", "[::1]:8000", "[::1]", "192.168.1.7:80"),
        *("my-server.example", "my-server.example:443", "[fe80::1]:1"),
    ],
)
def test_names_of_this_server(host: str) -> None:
    assert ask(host=host)[:2] == (200, b"answered")
    assert ask(host=host, origin=f"http://{host}")[0] == 200
    assert ask(host=host, origin=f"https://{host}")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example:80", "evil-localhost"),
        *(
            "",
            ":8000",
            "user@localhost",
            "localhost:8000@evil.example",
            "localhost, evil.example",
            "1.2.3.4.5",
            "[",
            "é",
        ),
    ],
)
def test_other_hosts_are_refused(host: str) -> None:
    status, body, _ = ask(host=host)
    assert status == 403
    assert json.loads(body)["error"].startswith("Host ")


def test_a_request_without_host_is_refused() -> None:
    assert ask()[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost", "http://127.0.0.1:9000", ""])
def test_other_pages_are_refused(origin: str) -> None:
    status, body, _ = ask(host="127.0.0.1:8000", origin=origin)
    assert status == 403
    assert json.loads(body)["error"].startswith("Origin ")


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_every_answer_has_the_headers_and_lets_no_other_page_read_it(host: str) -> None:
    _, _, headers = ask(host=host)
    assert HEADERS.keys() <= {name.title() for name in headers} | {"X-Content-Type-Options"}
    assert not any(name.startswith("access-control") for name in headers)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
