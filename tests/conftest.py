"""What all tests share: one thread (ten times faster on small tensors), no denormals, and a seed."""

import pytest
import torch

torch.set_num_threads(1)
torch.set_flush_denormal(True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
