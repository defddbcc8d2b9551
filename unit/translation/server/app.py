"""The routes: POST /translate, what describes them, and the page."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from unit.domains import Domain
from unit.errors import ConfigError, ImageError, escape
from unit.machine import core_count
from unit.translation.frames import suited
from unit.translation.provenance.marks import Provenance
from unit.translation.server import images
from unit.translation.server.admission import Admission, Limits
from unit.translation.server.batching import Batcher, OutOfMemoryError, Task
from unit.translation.server.openapi import openapi
from unit.translation.server.options import Options, parse_options
from unit.translation.server.security import Guard
from unit.translation.translator import Translator

P = ParamSpec("P")
T = TypeVar("T")
_PAGE = ("style.css", "script.js", "camera.js", "icon.svg")


class Service:
    """Models, and what translates with them.

    Args:
        models: by the name that requests choose them by; the first is the default.
        limits: of one request and of all together.
        batch_size: images of equal size to translate together.
    """

    def __init__(self, models: Mapping[str, Translator], limits: Limits, batch_size: int) -> None:
        self.models = models
        self.admission = Admission(limits)
        self._marks: dict[tuple[int, Domain, bool], Provenance] = {}
        self._batcher = Batcher(batch_size)
        self._threads = ThreadPoolExecutor(min(4, core_count()))
        """for decoding and encoding"""

    def close(self) -> None:
        """End the threads; where requests had time to finish, what still runs is a large image nobody waits for."""
        self._batcher.close(timeout=1)
        self._threads.shutdown(cancel_futures=True)

    async def health(self, _: Request) -> Response:
        """Answer GET /health."""
        return JSONResponse({"status": "ok", "requests": self.admission.requests})

    async def list_models(self, _: Request) -> Response:
        """Answer GET /models."""
        limits = self.admission.limits
        models = [
            {
                "name": name,
                "domains": {"a": translator.names.a, "b": translator.names.b},
                "size": translator.config.data.load_size,
                "step": translator.step,
            }
            for name, translator in self.models.items()
        ]
        return JSONResponse({"models": models, "limits": {"bytes": limits.bytes, "pixels": limits.pixels}})

    async def describe(self, _: Request) -> Response:
        """Answer GET /openapi.json."""
        return JSONResponse(openapi(self.models, self.admission.limits))

    async def translate(self, request: Request) -> Response:
        """Answer POST /translate."""
        options = parse_options(request.query_params.multi_items())
        translator, source = self._choose(options)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "the body is compressed; send the image file as it is")
        with self.admission.request():
            try:
                body = await self.admission.body(request)
                return await _while_connected(request, self._answer(body, translator, source, options))
            except asyncio.CancelledError:  # by uvicorn, when the time to finish has passed
                raise HTTPException(503, "the server is stopping; try again later") from None

    def _choose(self, options: Options) -> tuple[Translator, Domain]:
        name = next(iter(self.models)) if options.model is None else options.model
        if name not in self.models:
            raise ConfigError(f"model={escape(name)[:100]}: no such model; one of {', '.join(self.models)}")
        translator = self.models[name]
        return translator, translator.source(options.direction)

    async def _answer(self, body: bytes, translator: Translator, source: Domain, options: Options) -> Response:
        """Decode, translate and encode."""
        pixels = await self._thread(images.count_pixels, body)
        async with self.admission.pixels(pixels):
            upload = await self._thread(images.decode, body, pixels)
            translator = copy.copy(suited(translator, upload.deep))
            translator.detail = options.detail
            mark = await self._mark(translator, source, options.samples is not None)
            seeds = [None] if options.samples is None else [options.seed + k for k in range(options.samples)]
            encoded = []
            for seed in seeds:  # one after the other, so that the memory is that of one
                tasks = [Task(translator, source, frame.colors, seed, options.strength) for frame in upload.frames]
                tensors = await self._translate(tasks)
                encoded.append(await self._thread(images.encode_translation, upload, tensors, options.format, mark))
            return await self._respond(encoded)

    async def _translate(self, tasks: Sequence[Task]) -> Sequence[Tensor]:
        futures = [asyncio.wrap_future(self._batcher.submit(task)) for task in tasks]
        try:
            return await asyncio.gather(*futures)
        finally:
            for future in futures:  # where one has failed, the others are wanted no more
                future.cancel()

    async def _mark(self, translator: Translator, source: Domain, sampled: bool) -> Provenance:
        """Return the mark of outputs; the model's hash takes a while, so it is kept."""
        key = id(translator.networks), source, sampled
        if key not in self._marks:
            self._marks[key] = await self._thread(translator.provenance, source, sampled)
        return self._marks[key]

    async def _respond(self, encoded: Sequence[images.Encoded]) -> Response:
        lost = sorted({name for sample in encoded for name in sample.lost})
        headers = {"X-Not-Kept": "; ".join(lost)} if lost else None
        if len(encoded) == 1:
            return Response(encoded[0].content, 200, headers, images.media_type(encoded[0].format))
        return Response(await self._thread(images.archive, encoded), 200, headers, "application/zip")

    async def _thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))


@contextmanager
def running_app(
    models: Mapping[str, Translator],
    limits: Limits | None = None,
    batch_size: int = 8,
    hosts: Collection[str] = ("localhost",),
) -> Iterator[Starlette]:
    """Give the ASGI application, whose threads run inside of the ``with`` block.

    Args:
        models: by the name that requests choose them by; the first is the default.
        limits: of one request and of all together; None: the default ones.
        batch_size: images of equal size to translate together.
        hosts: names that may stand in the Host header, besides IP addresses.
    """
    service = Service(models, limits or Limits(), batch_size)
    routes = [
        Route("/translate", service.translate, methods=["POST"]),
        Route("/health", service.health),
        Route("/models", service.list_models),
        Route("/openapi.json", service.describe),
        Route("/", partial(_page, "index.html")),
        *(Route(f"/{name}", partial(_page, name)) for name in _PAGE),
    ]
    handlers: dict[Any, Any] = {HTTPException: _http_error, ClientDisconnect: _gone, Exception: _internal_error}
    handlers |= {ConfigError: partial(_user_error, 400), ImageError: partial(_user_error, 400)}
    handlers[OutOfMemoryError] = partial(_user_error, 503)
    middleware = [Middleware(Guard, hosts=hosts)]
    try:
        yield Starlette(routes=routes, exception_handlers=handlers, middleware=middleware)
    finally:
        service.close()


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run what a request asks for, but cancel it when the client goes away.

    Raises:
        ClientDisconnect: the client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _page(name: str, _: Request) -> Response:
    return FileResponse(Path(__file__).with_name(name))


async def _http_error(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _user_error(status: int, _: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status)


async def _gone(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "the connection was closed"}, 400)  # nobody reads it


async def _internal_error(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "the server failed at this request; its log says why"}, 500)
