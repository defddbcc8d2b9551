"""What waits is translated together, with the result that each image has alone, and no error stays in the thread."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.tiny import TINY
from unit.domains import Domain, PerDomain
from unit.errors import UserError
from unit.images import to_tensor
from unit.model.networks import build_autoencoders
from unit.translation.server.batching import Batcher, OutOfMemoryError, Task
from unit.translation.translator import Translator


class Gated(Translator):
    """Waits for the gate before each batch, records its shape, and fails for batches of more than `most`."""

    def __init__(self) -> None:
        super().__init__(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")
        self.gate, self.entered = threading.Semaphore(0), threading.Semaphore(0)
        self.batches: list[int] = []
        self.most = 1000
        self.error: Exception = UserError("out of memory on cpu")

    def translate(self, images: Tensor, source: Domain, seed: int | None = None, **options: Any) -> Tensor:
        self.entered.release()
        assert self.gate.acquire(timeout=10)
        self.batches.append(len(images))
        if len(images) > self.most:
            raise self.error
        return super().translate(images, source, seed, **options)


@pytest.fixture
def translator() -> Gated:
    return Gated()


@pytest.fixture
def batcher(translator: Gated) -> Iterator[Batcher]:
    batcher = Batcher(batch_size=4)
    yield batcher
    translator.gate.release(1000)
    batcher.close()


def image(seed: int, height: int = 8, width: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


def occupy(batcher: Batcher, translator: Gated) -> None:
    """Let the thread begin with an image, so that the next ones wait."""
    batcher.submit(Task(translator, Domain.A, image(99)))
    assert translator.entered.acquire(timeout=10)


def test_what_waits_is_translated_together_with_the_result_of_each_alone(batcher: Batcher, translator: Gated) -> None:
    occupy(batcher, translator)
    tasks = [Task(translator, Domain.A, image(k)) for k in range(6)]
    for task in tasks:
        batcher.submit(task)
    translator.gate.release(1000)
    results = [task.result.result(10) for task in tasks]
    assert translator.batches == [1, 4, 2]
    for task, result in zip(tasks, results, strict=True):
        alone = Translator.translate(translator, to_tensor(task.image)[None], Domain.A)[0]
        torch.testing.assert_close(result, alone, atol=1e-4, rtol=0)


def test_only_equal_ones_go_together_whatever_stands_between_them(batcher: Batcher, translator: Gated) -> None:
    occupy(batcher, translator)
    other = Gated()
    other.gate.release(1000)
    guided = copy.copy(translator)
    guided.detail = "guided"
    differing: list[dict[str, Any]] = [
        {},
        {"image": image(1, 8, 12)},
        {"source": Domain.B},
        {"seed": 0},
        {"seed": 1},
        {"strength": 0.5},
        {"translator": guided},
        {"translator": other},
    ]
    defaults = {"translator": translator, "source": Domain.A, "image": image(1)}
    tasks = [Task(**defaults | keys) for keys in differing for _ in range(2)]
    for task in tasks[::2] + tasks[1::2]:
        batcher.submit(task)
    translator.gate.release(1000)
    results = [task.result.result(10) for task in tasks]
    assert translator.batches == [1, *[2] * (len(differing) - 1)]
    assert other.batches == [2]
    for first, second in zip(results[::2], results[1::2], strict=True):
        assert torch.equal(first, second)
    distinct = [results[k] for k in (0, 4, 6, 8, 10)]
    assert all(not torch.equal(a, b) for k, a in enumerate(distinct) for b in distinct[:k])


def test_the_oldest_goes_first(batcher: Batcher, translator: Gated) -> None:
    occupy(batcher, translator)
    order: list[int] = []
    for k, width in enumerate((8, 12, 8, 16, 12)):
        result = batcher.submit(Task(translator, Domain.A, image(k, 8, width)))
        result.add_done_callback(lambda _, k=k: order.append(k))
    translator.gate.release(1000)
    result.result(10)
    batcher.close()
    assert order == [0, 2, 1, 4, 3]


def test_a_cancelled_image_is_not_translated(batcher: Batcher, translator: Gated) -> None:
    occupy(batcher, translator)
    tasks = [Task(translator, Domain.A, image(k)) for k in range(3)]
    for task in tasks:
        batcher.submit(task)
    assert tasks[1].result.cancel()
    translator.gate.release(1000)
    tasks[2].result.result(10)
    assert translator.batches == [1, 2]


@pytest.mark.parametrize("error", [UserError("out of memory on cpu"), MemoryError(), RuntimeError("bad_alloc")])
def test_where_a_batch_does_not_fit_each_image_goes_alone(
    error: Exception, batcher: Batcher, translator: Gated
) -> None:
    translator.most, translator.error = 1, error
    occupy(batcher, translator)
    tasks = [Task(translator, Domain.A, image(k)) for k in range(3)]
    for task in tasks:
        batcher.submit(task)
    translator.gate.release(1000)
    assert all(task.result.result(10).shape == (3, 8, 8) for task in tasks)
    assert translator.batches == [1, 3, 1, 1, 1]


def test_an_image_that_does_not_fit_alone_is_told_and_the_next_one_is_done(batcher: Batcher, translator: Gated) -> None:
    translator.gate.release(1000)
    translator.most = 0
    with pytest.raises(OutOfMemoryError, match="out of memory on cpu; send a smaller image"):
        batcher.submit(Task(translator, Domain.A, image(0))).result(10)
    translator.error = ValueError("a mistake in the program")
    with pytest.raises(ValueError, match="a mistake"):
        batcher.submit(Task(translator, Domain.A, image(0))).result(10)
    translator.most = 1
    assert batcher.submit(Task(translator, Domain.A, image(0))).result(10).shape == (3, 8, 8)


def test_closing_ends_the_batch_in_progress_and_cancels_the_rest(translator: Gated) -> None:
    batcher = Batcher(batch_size=1)
    first, second = (Task(translator, Domain.A, image(k)) for k in range(2))
    batcher.submit(first)
    batcher.submit(second)
    assert translator.entered.acquire(timeout=10)
    threading.Timer(0.1, translator.gate.release).start()
    batcher.close()
    assert first.result.result(0).shape == (3, 8, 8)
    for task in (second, Task(translator, Domain.A, image(0))):
        with pytest.raises(CancelledError):
            batcher.submit(task).result(0)
