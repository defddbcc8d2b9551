"""What a server takes on at a time: requests, bytes and pixels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from unit.errors import format_bytes

_SILENCE = 30.0
"""Seconds without a byte of the body after which a request is given up."""


@dataclass(frozen=True)
class Limits:
    """The largest image, and the longest queue."""

    bytes: int = 50_000_000
    """of a request's body"""
    pixels: int = 50_000_000
    """of an image, all its frames together, and of all images in memory at a time"""
    requests: int = 64
    """in progress and waiting"""


class Admission:
    """Counts requests and pixels in progress against the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        """in progress and waiting"""
        self._free_pixels = limits.pixels
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request.

        Raises:
            HTTPException: 429, there are too many.
        """
        if self.requests >= self.limits.requests:
            reason = f"{self.requests} requests are in progress already; try again in a second"
            raise HTTPException(429, reason, {"Retry-After": "1"})
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @asynccontextmanager
    async def pixels(self, number: int) -> AsyncIterator[None]:
        """Wait until an image of so many pixels fits beside those in progress.

        Raises:
            HTTPException: 413, it never will.
        """
        if number > self.limits.pixels:
            raise HTTPException(413, f"{number} pixels are more than {self.limits.pixels}; make the image smaller")
        async with self._turn:  # in order of arrival: many small images must not keep a large one waiting
            while number > self._free_pixels:
                self._freed.clear()
                await self._freed.wait()
            self._free_pixels -= number
        try:
            yield
        finally:
            self._free_pixels += number
            self._freed.set()

    async def body(self, request: Request) -> bytes:
        """Read a request's body.

        Raises:
            HTTPException: 413, larger than the limit; 408, nothing came for a long time.
            ClientDisconnect: the client has gone.
        """
        too_large = HTTPException(413, f"more than {format_bytes(self.limits.bytes)}; make the image smaller")
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self.limits.bytes:
            raise too_large
        body = bytearray()
        chunks = request.stream()
        try:
            while chunk := await asyncio.wait_for(anext(chunks), _SILENCE):
                body += chunk
                if len(body) > self.limits.bytes:
                    raise too_large
        except TimeoutError as error:
            raise HTTPException(408, f"no byte came for {_SILENCE:.0f} seconds; send the image again") from error
        finally:
            await chunks.aclose()
        return bytes(body)
