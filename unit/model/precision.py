"""Where more than bf16 is needed."""

from __future__ import annotations

import torch
from torch import Tensor


def fp32(x: Tensor) -> Tensor:
    """Return x in fp32, or as it is where it is more precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
