import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from unit.training import checkpoint

STATE = {"weights": {"a": torch.arange(6.0).reshape(2, 3)}, "step": 7, "names": ["x", "y"], "rate": 0.5}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = checkpoint.path_of(tmp_path / "checkpoints", 7)
    checkpoint.save(STATE, path)
    return path


def test_loading_is_the_inverse_of_saving_and_torch_reads_the_file_too(saved: Path) -> None:
    for state in (checkpoint.load(saved), torch.load(saved, weights_only=True)):
        assert torch.equal(state["weights"]["a"], STATE["weights"]["a"])
        assert {key: state[key] for key in ("step", "names", "rate")} == {
            key: STATE[key] for key in ("step", "names", "rate")
        }


def test_equal_states_give_equal_files(saved: Path, tmp_path: Path) -> None:
    checkpoint.save(STATE, tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == saved.read_bytes()


def test_every_truncation_and_200_flipped_bits_are_noticed(saved: Path) -> None:
    content, random_ = saved.read_bytes(), random.Random(0)
    damaged = [content[: len(content) * n // 50] for n in range(50)]
    for _ in range(200):
        flipped = bytearray(content)
        flipped[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        damaged.append(bytes(flipped))
    for one in damaged:
        saved.write_bytes(one)
        with pytest.raises(checkpoint.BadCheckpointError, match=saved.name):
            checkpoint.load(saved)


class Bomb:
    """Runs code when unpickled, as hostile files do."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trap),)


@pytest.mark.parametrize("checksummed", [True, False])
def test_a_hostile_pickle_is_refused_and_its_code_is_not_run(saved: Path, tmp_path: Path, checksummed: bool) -> None:
    trap = tmp_path / "sprung"
    if checksummed:  # somebody who knows the format
        checkpoint.save({"weights": Bomb(trap)}, saved)
    else:
        saved.write_bytes(pickle.dumps(Bomb(trap)))
    with pytest.raises(checkpoint.BadCheckpointError):
        checkpoint.load(saved)
    assert not trap.exists()


def test_missing_is_bad_too(tmp_path: Path) -> None:
    with pytest.raises(checkpoint.BadCheckpointError, match="can't be read"):
        checkpoint.load(tmp_path / "step-00000001.pt")


def test_newest_first_by_number_and_only_checkpoints(tmp_path: Path) -> None:
    for name in ("step-00000009.pt", "step-00000010.pt", "step-100000000.pt", "step-00000011.pt.partial", "other.pt"):
        (tmp_path / name).touch()
    assert [step for step, _ in checkpoint.available(tmp_path)] == [100_000_000, 10, 9]
    checkpoint.remove_old(tmp_path, 100_000_000, keep_last=2, keep_every=None)
    assert [step for step, _ in checkpoint.available(tmp_path)] == [100_000_000, 10]
    assert (tmp_path / "other.pt").exists()


def test_later_ones_that_were_passed_over_displace_none(tmp_path: Path) -> None:
    for step in (10, 20, 99):
        checkpoint.path_of(tmp_path, step).touch()
    checkpoint.remove_old(tmp_path, 20, keep_last=1, keep_every=None)
    assert [step for step, _ in checkpoint.available(tmp_path)] == [99, 20]


def test_every_m_th_is_kept_besides_the_newest(tmp_path: Path) -> None:
    for step in range(0, 70, 10):
        checkpoint.path_of(tmp_path, step).touch()
    checkpoint.remove_old(tmp_path, 60, keep_last=2, keep_every=20)
    assert [step for step, _ in checkpoint.available(tmp_path)] == [60, 50, 40, 20]
