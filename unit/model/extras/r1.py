"""R1, the zero-centred gradient penalty on real images (Mescheder et al. 2018), computed lazily (StyleGAN2)."""

from __future__ import annotations

import torch
from torch import Tensor

from unit.domains import Domain
from unit.model.extras import LossExtra
from unit.model.losses import Logits
from unit.model.networks import Discriminators
from unit.model.objective import Microbatch, Terms

INTERVAL = 16
"""Steps between two updates with the penalty, which is weighted that much higher."""


def r1(images: Tensor, logits: Logits) -> Tensor:
    """½‖∇D(x)‖² at images (B, 3, H, W), from which logits (B, 1, h, w) were computed in fp32.

    The square is summed over pixels and averaged over the batch. The gradient is that of the sum over a scale's
    patches, and its square is divided by their number: as far as no two patches see one pixel, that is the mean of each
    patch's own ‖∇‖², so that it does not grow with the image. Summed over the scales.
    """
    penalties = []
    for scale in logits:
        (gradient,) = torch.autograd.grad(scale.sum(), images, create_graph=True)
        penalties.append(gradient.square().sum() / (2 * len(images) * scale[0].numel()))
    return torch.stack(penalties).sum()


class Extra(LossExtra):
    """Penalizes D_i's gradient at the real images it sees, in fp32."""

    def discriminator_terms(self, discriminators: Discriminators, batch: Microbatch) -> Terms:
        """Return the penalty in every 16th step."""
        if batch.step % INTERVAL:
            return {}
        assert batch.d_real
        real = batch.d_real.map(lambda x: x.detach().requires_grad_())
        with torch.autocast(real.a.device.type, enabled=False):
            logits = discriminators.forward(real)  # not the compiled call, which has no second derivative
            return {f"r1_{i}": self.weight * INTERVAL * r1(real[i], logits[i]) for i in Domain}
