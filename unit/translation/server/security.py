"""Who may talk to the server, and what its page may do."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unit.errors import escape

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """Answers only requests that name this server as their host, and come from its own page or from no page.

    A page of another site can let its name point to 127.0.0.1 (DNS rebinding): then the Host header holds that name.
    It can also post to 127.0.0.1 directly: then the Origin header holds its name.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        reason = self._refusal(Headers(scope=scope))
        answer = self._app if reason is None else JSONResponse({"error": reason}, 403)
        await answer(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _without_port(host)
        if name not in self._hosts and not _is_address(name):
            return (
                f"Host {escape(host)[:100]}: no name of this server; use its IP address, or start it with --allow_host"
            )
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return f"Origin {escape(origin)[:100]}: requests from other pages are refused"
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    name = name if colon and (port.isdecimal() or not port) else host.lower()
    return name.removeprefix("[").removesuffix("]")


def _is_address(name: str) -> bool:
    """True for an IP address, which no other site's name can pretend to be."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
