import os
import pickle
import signal
import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.synchronize import Event

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.tiny import batch_indices
from unit.config import DataConfig
from unit.data import batches
from unit.data.bad_images import BadImages
from unit.data.batches import TrainingImages, held_out_image, training_batches
from unit.domains import Domain, PerDomain
from unit.image_source import ImageSource
from unit.images import center_crop, random_crop

CPU = torch.device("cpu")


class Plain(ImageSource):
    """`count` images, image k all of grey level k, wider than high."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{index}.png"

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        return Image.new("RGB", (12, 8), (index, index, index))


CONFIG = DataConfig(load_size=8, crop_size=8)


def images(counts: tuple[int, int] = (5, 7), seed: int = 0, config: DataConfig = CONFIG) -> TrainingImages:
    return TrainingImages(PerDomain(Plain(counts[0]), Plain(counts[1])), config, seed)


def none_bad() -> BadImages:
    return BadImages(PerDomain(5, 7))


def levels(batch: torch.Tensor) -> list[int]:
    return [round((image[0, 0, 0].item() + 1) * 127.5) for image in batch]


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1))
def test_an_epochs_order_is_a_permutation_that_follows_from_its_seed(count: int, seed: int) -> None:
    order = Plain(count).epoch_order(seed)
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, Plain(count).epoch_order(seed))


def test_an_epochs_order_is_mixed() -> None:
    """Neighbours, sample indices and seeds are as unrelated as in a shuffled list: within 5 sigma."""
    count, trials = 40, 2000
    orders = torch.stack([Plain(count).epoch_order(seed) for seed in range(trials)])
    first = Counter(orders[:, 0].tolist())
    assert max(abs(first[index] - trials / count) for index in range(count)) < 5 * (trials / count) ** 0.5
    steps = Counter(((orders[:, 1] - orders[:, 0]) % count).tolist())
    assert steps[0] == 0
    assert max(abs(steps[step] - trials / 39) for step in range(1, count)) < 5 * (trials / 39) ** 0.5


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_a_sample_is_the_same_image_whatever_was_asked_before(sample_indices: list[int]) -> None:
    data = images()
    for domain in Domain:
        for index in sample_indices:
            assert data.index(domain, index) == images().index(domain, index)


def test_an_epoch_shows_each_image_once_and_epochs_differ() -> None:
    data = images()
    for domain, count in ((Domain.A, 5), (Domain.B, 7)):
        epochs = [[data.index(domain, epoch * count + k) for k in range(count)] for epoch in range(6)]
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_domains_orders_are_unrelated_and_follow_the_seed() -> None:
    def orders(seed: int) -> list[list[int]]:
        data = images((50, 50), seed)
        return [[data.index(i, k) for k in range(50)] for i in Domain]

    assert orders(0) == orders(0)
    a, b = orders(0)
    assert a != b
    assert [a, b] != orders(1)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_start_at_any_step_and_do_not_depend_on_workers(workers: int) -> None:
    def batches(steps: range, workers: int) -> list[PerDomain[torch.Tensor]]:
        return list(training_batches(images(), none_bad(), batch_indices(steps, 3), workers, CPU))

    uninterrupted, late = batches(range(6), 0), batches(range(4, 6), workers)
    assert len(late) == 2
    for one, two in zip(uninterrupted[4:], late, strict=True):
        assert all(torch.equal(one[i], two[i]) for i in Domain)


def test_more_workers_than_cores_are_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._utils, "cpu_count", lambda: 1)
    assert len(list(training_batches(images(), none_bad(), batch_indices(range(2), 1), 2, CPU))) == 2


class Slow(Plain):
    """Images that say when they are being read, and are read when `finish` is set."""

    def __init__(self, count: int, reading: Event, finish: Event) -> None:
        super().__init__(count)
        self.reading, self.finish = reading, finish

    def image(self, index: int, short_side: int | None = None) -> Image.Image:
        self.reading.set()
        self.finish.wait(60)
        return super().image(index)


def _read_batch(reading: Event, finish: Event) -> None:
    os.setpgrp()
    data = TrainingImages(PerDomain(Slow(5, reading, finish), Plain(7)), CONFIG, 0)
    list(training_batches(data, none_bad(), batch_indices(range(1), 1), 1, CPU))


def test_a_process_that_was_suspended_for_longer_than_the_time_limit_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_TIMEOUT", 3)
    monkeypatch.setattr(batches, "_PART_OF_TIMEOUT", 1)
    context = get_context("fork")
    reading, finish = context.Event(), context.Event()
    process = context.Process(target=_read_batch, args=(reading, finish))
    process.start()
    assert reading.wait(60)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(3.2)
    os.killpg(process.pid, signal.SIGCONT)
    time.sleep(0.3)
    finish.set()
    process.join(60)
    assert process.exitcode == 0


def test_the_same_global_batch_gives_the_same_images_whatever_its_parts() -> None:
    by_four = [b.a for b in training_batches(images(), none_bad(), batch_indices(range(3), 4), 0, CPU)]
    by_two = [b.a for b in training_batches(images(), none_bad(), batch_indices(range(6), 2), 0, CPU)]
    assert torch.equal(torch.cat(by_four), torch.cat(by_two))


def test_a_folder_smaller_than_the_batch_fills_it_by_going_round() -> None:
    (batch,) = training_batches(images((1, 3)), none_bad(), batch_indices(range(1), 6), 0, CPU)
    assert levels(batch.a) == [0] * 6
    assert Counter(levels(batch.b)) == {0: 2, 1: 2, 2: 2}


def gradient(width: int, height: int) -> Image.Image:
    """Each pixel encodes its position."""
    image = Image.new("RGB", (width, height))
    image.putdata([(x, y, 0) for y in range(height) for x in range(width)])
    return image


def test_random_crops_reach_every_place_and_flip_half_of_the_time() -> None:
    seen, flips = set(), 0
    for seed in range(400):
        crop = random_crop(gradient(7, 5), 4, True, seed)
        corners = [crop.getpixel((0, 0))[0], crop.getpixel((3, 0))[0]]
        flips += corners[0] > corners[1]
        seen.add((min(corners), crop.getpixel((0, 0))[1]))
        assert abs(corners[0] - corners[1]) == 3
    assert seen == {(x, y) for x in range(4) for y in range(2)}
    assert 150 < flips < 250
    assert not any(random_crop(gradient(7, 5), 4, False, seed).getpixel((0, 0))[0] > 3 for seed in range(50))


def test_augmentation_follows_the_place_in_the_sequence_not_the_image() -> None:
    class Same(Plain):
        def image(self, index: int, short_side: int | None = None) -> Image.Image:
            return gradient(40, 8)

    data = TrainingImages(PerDomain(Same(1), Same(1)), CONFIG, 0)
    crops = [data[sample_index].images.a for sample_index in range(20)]
    assert len({tuple(crop[0, 0].tolist()) for crop in crops}) > 10
    assert all(torch.equal(crop, data[sample_index].images.a) for sample_index, crop in enumerate(crops))
    assert not torch.equal(data[0].images.a, data[0].images.b)


def test_the_center_crop_is_the_middle() -> None:
    crop = center_crop(gradient(10, 6), 4)
    assert (crop.getpixel((0, 0))[:2], crop.getpixel((3, 3))[:2]) == ((3, 1), (6, 4))


def test_a_test_image_is_resized_cropped_and_never_flipped() -> None:
    class Wide(Plain):
        def image(self, index: int, short_side: int | None = None) -> Image.Image:
            return gradient(30, 10)

    tensor = held_out_image(Wide(1), 0, DataConfig(load_size=10, crop_size=8))
    assert tensor.shape == (3, 8, 8)
    assert ((tensor[0, 0] + 1) * 127.5).round().tolist() == list(range(11, 19))


def test_training_and_held_out_images_are_asked_for_as_large_as_needed() -> None:
    asked: list[int | None] = []

    class Asked(Plain):
        def image(self, index: int, short_side: int | None = None) -> Image.Image:
            asked.append(short_side)
            return super().image(index)

    config = DataConfig(load_size=9, crop_size=8)
    held_out_image(Asked(1), 0, config)
    TrainingImages(PerDomain(Asked(1), Asked(1)), config, 0)[0]
    assert asked == [9, 9, 9]


def test_training_images_travel_to_loader_processes() -> None:
    data = pickle.loads(pickle.dumps(images()))
    assert torch.equal(data[3].images.a, images()[3].images.a)
