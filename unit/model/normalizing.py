"""Normalization by statistics that do not depend on how an image is cut into strips, to the last bit.

In bf16, two ways to sum that agree to seven digits round some features to neighbouring values; after the next layers
their images differ by several levels of 255. So strips and the whole image both sum along each row alone, in fp32, and
then over the rows, in fp64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional


def long_dim(x: Tensor) -> int:
    """Return the dimension of (B, C, H, W) that rows are counted along: the longer side."""
    return 2 if x.shape[2] >= x.shape[3] else 3


def row_moments(x: Tensor, dim: int) -> Tensor:
    """Return mean and mean square of each channel in each row of one image: (1, C, H, W) → (2, rows, C) in fp64.

    Args:
        x: features.
        dim: 2 or 3, along which the rows are counted.
    """
    if x.device.type != "cpu":
        dtype = torch.promote_types(x.dtype, torch.float32)
        variances, means = torch.var_mean(x.to(dtype), (0, 5 - dim), correction=0)
        means, variances = means.T.cpu().double(), variances.T.cpu().double()  # on the CPU: MPS has no float64
    else:
        x = (x if dim == 2 else x.transpose(2, 3)).contiguous(memory_format=torch.channels_last)
        unused = torch.zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
        # var_mean and sum take twenty times as long on channels_last
        moments = [torch.batch_norm_update_stats(row, unused, unused, 0.0) for row in x.split(1, 2)]
        means, variances = (torch.stack(rows).double() for rows in zip(*moments, strict=True))
    return torch.stack([means, variances + means**2])


def normalization_by(norm: nn.Module, moments: Tensor, like: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the normalization by the statistics of a whole image, to be applied to any part of it.

    Args:
        norm: group or instance normalization.
        moments: `row_moments` of all rows.
        like: features of the dtype and on the device of those that will be normalized.
    """
    assert isinstance(norm, nn.GroupNorm | nn.InstanceNorm2d)
    channels = moments.shape[2]
    groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else channels
    means = moments.mean(1).view(2, groups, -1).mean(2, keepdim=True).expand(2, groups, channels // groups)
    mean, square = means.reshape(2, channels)
    dtype = torch.promote_types(like.dtype, torch.float32)
    statistics = {"running_mean": mean, "running_var": square - mean**2}
    statistics = {name: value.to(like.device, dtype) for name, value in statistics.items()}
    return partial(functional.batch_norm, **statistics, weight=norm.weight, bias=norm.bias, eps=norm.eps)


def normalize_whole(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalize whole images (B, C, H, W), each by its own statistics."""
    dim = long_dim(x)
    return torch.cat([normalization_by(norm, row_moments(image, dim), image)(image) for image in x.split(1)])


def is_bf16_inference(x: Tensor) -> bool:
    """Return whether normalization must not depend on strips: when translating in bf16 on the CPU.

    On a GPU the convolutions depend on them already.
    """
    return x.device.type == "cpu" and x.dtype is torch.bfloat16 and torch.is_inference_mode_enabled()
