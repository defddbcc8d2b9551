"""A real server in a thread of this process, and requests to it."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from PIL import Image

from tests.tiny import TINY
from unit.domains import PerDomain
from unit.model.networks import build_autoencoders
from unit.translation.server.app import running_app
from unit.translation.translator import Translator


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> str:
        found = json.loads(self.body)
        assert list(found) == ["error"]
        assert found["error"].isprintable()
        return str(found["error"])

    @property
    def image(self) -> Image.Image:
        assert self.status == 200, self.body
        return Image.open(io.BytesIO(self.body))


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Host": "localhost"} | named)
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def translate(self, body: Any, query: str = "direction=a2b", **headers: str) -> Answer:
        return self.ask("POST", f"/translate?{query}", body, **headers)

    def get_json(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status == 200
        return json.loads(answer.body)

    def cut_off(self, body: bytes, length: int) -> None:
        """Begin a request of this length, send the body, and close the connection."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            head = f"POST /translate?direction=a2b HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode() + body)

    def wait_until_idle(self) -> None:
        for _ in range(600):
            if self.get_json("/health")["requests"] == 0:
                return
            time.sleep(0.05)
        raise AssertionError("requests are still in progress")


@contextmanager
def serving(models: Mapping[str, Translator], **options: Any) -> Iterator[Client]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    with running_app(models, **options) as app, listening as listener:
        config = uvicorn.Config(app, lifespan="off", log_config=None, log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def make_translator(a: str = "sunny", b: str = "rainy") -> Translator:
    networks = build_autoencoders(TINY.model).requires_grad_(False)
    return Translator(networks, TINY, PerDomain(a, b), 7, "cpu", "fp32")


def make_image(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    """Noise of 4 x 4 pixels, scaled up: it survives JPEG, and no two seeds are alike."""
    small = np.random.default_rng(seed).integers(256, size=(4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()


def difference(one: Image.Image, two: Image.Image) -> int:
    """The largest difference in levels."""
    assert one.size == two.size
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(two).astype(int)).max())
