"""Under load no answer is wrong, and nothing is left behind."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch

from tests.translation.server.serving import Answer, Client, difference, encoded, make_image, make_translator, serving
from unit.domains import Domain
from unit.images import to_image, to_tensor
from unit.translation.server.admission import Limits

pytestmark = pytest.mark.slow
SIZES = ((24, 16), (17, 23), (16, 16), (40, 30))


def patiently(client: Client, body: bytes, query: str) -> Answer:
    """Ask again while the queue is full, as it may be for a moment after others were cut off."""
    while (answer := client.translate(body, query)).status == 429:
        time.sleep(0.1)
    return answer


def test_200_requests_of_16_clients_are_answered_rightly() -> None:
    """Every fifth is malformed, and every seventh is cut off in the middle."""
    torch.manual_seed(0)
    models = {"first": make_translator(), "second": make_translator("day", "night")}
    batches: list[int] = []
    for translator in models.values():
        translate = translator.translate
        translator.translate = lambda x, *args, _do=translate, **keys: batches.append(len(x)) or _do(x, *args, **keys)  # type: ignore[method-assign]

    def ask(k: int) -> str:
        image, direction, model = (
            make_image(*SIZES[k % 4], seed=k),
            ("a2b", "b2a")[k // 4 % 2],
            ("first", "second")[k // 8 % 2],
        )
        body = encoded(image)
        if k % 7 == 0:
            client.cut_off(body[: len(body) // 2], len(body))
            return "cut off"
        seed = k if k % 3 == 0 else None
        query = f"direction={direction}&model={model}" + (f"&samples=1&seed={seed}" if seed is not None else "")
        if k % 5 == 0:
            wrong = [
                (b"no image", query, 415),
                (body[:-30], query, 400),
                (body, f"{query}&x=1", 400),
                (b"", query, 400),
            ]
            body, query, status = wrong[k // 5 % 4]
            answer = patiently(client, body, query)
            assert (answer.status, bool(answer.error)) == (status, True)
            return "malformed"
        x = to_tensor(image)[None]
        expected = to_image(models[model].__class__.translate(models[model], x, Domain(direction[0]), seed)[0])
        assert difference(patiently(client, body, query).image, expected) <= 1
        return "right"

    with serving(models, limits=Limits(requests=16)) as client, ThreadPoolExecutor(16) as clients:
        outcomes = list(clients.map(ask, range(200)))
        client.wait_until_idle()
    assert {name: outcomes.count(name) for name in set(outcomes)} == {"right": 137, "malformed": 34, "cut off": 29}
    assert max(batches) > 1, "some were translated together"
    assert sum(batches) == 137, "each was translated once"


def test_2000_requests_leak_nothing() -> None:
    process = psutil.Process()

    def ask(client: Client, k: int) -> None:
        if k % 10 == 0:
            client.cut_off(PNG[:50], len(PNG))
        elif k % 10 == 1:
            assert client.translate(b"no image").status == 415
        else:
            assert client.translate(PNG, f"direction=a2b&samples=1&seed={k}").status == 200

    sizes, handles = [], []
    with serving({"tiny": make_translator()}) as client, ThreadPoolExecutor(4) as clients:
        for _ in range(5):
            list(clients.map(lambda k: ask(client, k), range(400)))
            client.wait_until_idle()
            gc.collect()
            sizes.append(process.memory_info().rss)
            handles.append(process.num_fds())
    assert sizes[-1] - sizes[1] < 4_000_000, f"{[size / 1e6 for size in sizes]} MB after each 400 requests"
    assert max(handles[1:]) <= handles[0] + 8


PNG = encoded(make_image(16, 16))
