"""One thread that translates what many requests ask for, images of equal size together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from unit.devices import out_of_memory
from unit.domains import Domain
from unit.errors import UserError
from unit.images import to_tensor
from unit.images.deep import Levels
from unit.translation.translator import Translator

_THREAD = "translation"


class OutOfMemoryError(UserError):
    """Too little memory for this image now."""


@dataclass(frozen=True, eq=False)
class Task:
    """An image to translate."""

    translator: Translator
    source: Domain
    """the domain of the image"""
    image: Image.Image | Levels
    """RGB of 8 bits, or (H, W, 3) of 16"""
    seed: int | None = None
    """of the noise in the code; None: no noise"""
    strength: float = 1.0
    """0: reconstruction, 1: translation"""
    result: Future[Tensor] = field(default_factory=Future)
    """(3, H, W), or an `OutOfMemoryError`"""

    @property
    def key(self) -> Hashable:
        """Equal for images that can be translated together."""
        image = self.image
        size = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
        translator = id(self.translator.networks), self.translator.precision, self.translator.detail
        return *translator, self.source, *size, self.seed, self.strength


class Batcher:
    """A queue of images, and the thread that translates them: the oldest, with up to `batch_size` that fit with it.

    Nothing waits for a batch to fill: a batch is what has arrived while the one before was being translated.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._tasks: deque[Task] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> Future[Tensor]:
        """Queue an image; cancelling the result takes it out, unless its batch has begun."""
        with self._changed:
            if self._open:
                self._tasks.append(task)
                self._changed.notify()
            else:
                task.result.cancel()
        return task.result

    def close(self, timeout: float | None = None) -> None:
        """Cancel what waits, and wait, at most so many seconds, until the batch in progress has ended."""
        with self._changed:
            self._open = False
            self._changed.notify()
            while self._tasks:
                self._tasks.popleft().result.cancel()
        self._thread.join(timeout)

    def _run(self) -> None:
        while batch := self._take_batch():
            _translate(batch)
            del batch  # the images, while waiting for the next

    def _take_batch(self) -> list[Task]:
        """Wait for a task, and take it out of the queue with those of the same key; nothing when closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._tasks or not self._open)
                if not self._tasks:
                    return []
                key = self._tasks[0].key
                batch = [task for task in self._tasks if task.key == key][: self._batch_size]
                for task in batch:
                    self._tasks.remove(task)
                if started := [task for task in batch if task.result.set_running_or_notify_cancel()]:
                    return started


def is_translating() -> bool:
    """True while the thread of a batcher runs."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


def _translate(batch: Sequence[Task]) -> None:
    """Translate a batch, or each image alone where the memory is too small for all, and set the results."""
    try:
        out = _compute(batch)
    except OutOfMemoryError as error:
        if len(batch) == 1:
            batch[0].result.set_exception(error)
            return
        short_of_memory = True
    except Exception as error:  # must reach the requests, and not end the thread
        for task in batch:
            task.result.set_exception(error)
        return
    else:
        short_of_memory = False
    if short_of_memory:  # not above, where the exception still holds the batch's tensors
        for task in batch:
            _translate([task])
        return
    for task, tensor in zip(batch, out, strict=True):
        task.result.set_result(tensor)


def _compute(batch: Sequence[Task]) -> list[Tensor]:
    first = batch[0]
    try:
        images = torch.stack([to_tensor(task.image) for task in batch])
        out = first.translator.translate(images, first.source, first.seed, strength=first.strength)
        return [tensor.clone() for tensor in out] if len(batch) > 1 else [out[0]]  # each freed by itself
    except (UserError, MemoryError, RuntimeError) as error:
        if not isinstance(error, UserError) and not out_of_memory(error):
            raise
        reason = str(error) if isinstance(error, UserError) else "out of memory"
        raise OutOfMemoryError(f"{reason}; send a smaller image, or try again later") from None
