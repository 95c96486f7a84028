"""Muon, for matrices of a few shapes."""

from collections import defaultdict

import torch
from torch import Tensor
from torch.optim import Optimizer

STEPS, COEFFICIENTS = 5, (3.4445, -4.775, 2.0315)  # of the Newton-Schulz iteration


class Muon(Optimizer):
    """What `torch.optim.Muon` does with `adjust_lr_fn="match_rms_adamw"`, all of a shape at once.

    One by one, a hundred small matrices take the host of a GPU longer than a training step takes
    the GPU.
    """

    def __init__(self, params, lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """Move every matrix that has a gradient along the nearest orthogonal one."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes[matrix.shape].append(matrix)
            for shape, matrices in shapes.items():
                rate = 0.2 * max(shape) ** 0.5 * group["lr"]
                update = orthogonal(torch.stack(self._updates(matrices, group["momentum"])))
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, list(update.to(matrices[0].dtype)), alpha=-rate)

    def _updates(self, matrices: list[Tensor], momentum: float) -> list[Tensor]:
        """The gradients with Nesterov's momentum."""
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        mean = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        gradients = [matrix.grad for matrix in matrices]
        torch._foreach_lerp_(mean, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, mean, momentum))


def orthogonal(matrices: Tensor) -> Tensor:
    """Singular values of matrices [K, R, C] brought near one by Newton-Schulz steps, in bf16."""
    turned = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if turned else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if turned else x
