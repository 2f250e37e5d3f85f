"""What squared errors are worth, place by place: weights that the encoder alone knows.

For PSNR they are worth the same everywhere. MS-SSIM (Wang, Simoncelli & Bovik 2003) divides errors by
the local variance, so there an error counts less where the picture is busy: its importance is

    (v + C)^-ALPHA, divided by its geometric mean,

v the local variance of the picture's brightness. The stream does not change: steps stay as they are,
and the encoder decides otherwise which symbols are worth their bits.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .ladder import LAYERS
from .quantise import BITS_PER_SQUARED_ERROR
from .transform import weave

TUNINGS = ("psnr", "ms-ssim")
ALPHA = 0.5
FLOOR = 58.5  # C: (0.03 * 255)^2, the constant of SSIM's contrast term
REACH = 3  # in positions at stride 8, to every side
LIMIT = 4.0  # of the importance, both ways


def log_importance(pixels: Tensor, tune: str) -> Tensor:
    """Logarithm of the importance of squared errors, up to a constant.

    Args:
        pixels: B x 3 x H x W; the result is B x 1 x H/8 x W/8.
        tune: one of `TUNINGS`.
    """
    brightness = pixels.mean(1, keepdim=True)
    if tune == "psnr":
        return torch.zeros_like(F.avg_pool2d(brightness, 8))

    def local(planes: Tensor) -> Tensor:
        size = 2 * REACH + 1
        planes = F.pad(F.avg_pool2d(planes, 8), (REACH,) * 4, mode="replicate")
        return F.avg_pool2d(planes, size, stride=1)

    variance = local(brightness.square()) - local(brightness).square()
    return -ALPHA * torch.log(variance.clamp(min=0) + FLOOR)


def importance(logs: Tensor, mean: float) -> Tensor:
    """Importance, 1/4 .. 4, from its logarithm and the mean of that over the whole picture."""
    return torch.exp(logs - mean).clamp(1 / LIMIT, LIMIT)


def at_stride(importance: Tensor, stride: int) -> Tensor:
    """Mean importance at the positions of a stride of at least 8."""
    return F.avg_pool2d(importance, stride // 8)


def at_pixels(importance: Tensor, height: int, width: int) -> np.ndarray:
    """Importance of every pixel of a picture, H x W float32."""
    rows = importance[0, 0].repeat_interleave(8, 0)[:height]
    return rows.repeat_interleave(8, 1)[:, :width].numpy()


def worth(importance: Tensor, thrift: float = 1.0) -> list[Tensor]:
    """Bits that a squared error of one step is worth, for each of the ladder's layers (`quantise.py`).

    Args:
        thrift: above 1, bits are worth more than lambda says.
    """
    return [at_stride(importance, la.stride) * (BITS_PER_SQUARED_ERROR / thrift) for la in LAYERS]


def woven_worth(worth: Sequence[Tensor], weights: Sequence[float], latents: Sequence[Tensor]) -> Tensor:
    """The same for coefficients that are refined, at rate weight 1: B x 192 x H/8 x W/8.

    The step of a coefficient follows the rate weight of its layer of the ladder, and so does an error's
    worth.

    Args:
        worth, weights, latents: per layer of the ladder, coarse first; what follows is not looked at.
    """
    return weave([(w * beta).expand_as(y) for w, beta, y in zip(worth, weights, latents)])
