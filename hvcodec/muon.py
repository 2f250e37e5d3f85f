"""The Muon optimiser for matrices, many at once.

Muon (Jordan et al. 2024) steps along the orthogonal part of the momentum, found by a Newton-Schulz
iteration. `torch.optim.Muon` does one matrix at a time in bfloat16; here matrices of one shape share
batched products in the dtype that this processor is fast in, several times faster for small ones.
"""

import torch
from torch import Tensor

# Quintic coefficients of the Newton-Schulz iteration, from the reference above.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(stack: Tensor) -> Tensor:
    """Nearest (semi-)orthogonal matrices, roughly: N x rows x columns -> the same shape."""
    a, b, c = COEFFICIENTS
    tall = stack.shape[1] > stack.shape[2]
    x = stack.mT if tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, Nesterov, orthogonalised in `dtype`; steps scaled by sqrt(max(1, rows / columns))."""

    def __init__(
        self,
        params: list[torch.nn.Parameter],
        lr: float,
        dtype: torch.dtype,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, members in shapes.items():
                updates = []
                for p in members:
                    assert p.grad is not None
                    moment = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    moment.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(torch.lerp(p.grad, moment, group["momentum"]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(members, orthogonalise(torch.stack(updates).to(self.dtype))):
                    p.add_(update, alpha=-group["lr"] * scale)
