"""Quality and rate measures of the benchmarks."""

import math

import numpy as np
from scipy.interpolate import PchipInterpolator

BANDS = ((28, 31), (31, 34), (34, 38), (38, 44))  # dB
RATES = (0.15, 2.0)  # bits per pixel of the anchor between which the BD-rate is quoted


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB over R, G and B of two uint8 arrays H x W x 3."""
    mse = np.square(a.astype(np.float64) - b).mean()
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """MS-SSIM (Wang, Simoncelli & Bovik 2003) over R, G and B of two uint8 arrays H x W x 3."""
    import torch
    from pytorch_msssim import ms_ssim

    x, y = (torch.from_numpy(c.astype(np.float32)).permute(2, 0, 1)[None] for c in (a, b))
    return float(ms_ssim(x, y, data_range=255))


def in_decibels(similarities: list[float]) -> list[float]:
    """MS-SSIM 0..1 on a logarithmic scale, -10 log10(1 - s), as it is usually plotted."""
    return [-10 * math.log10(max(1 - s, 1e-6)) for s in similarities]


def band_of_rates(curve: tuple[list[float], list[float]]) -> tuple[float, float]:
    """Qualities of a curve at the ends of `RATES`, or at its own ends where it is shorter."""
    rates, qualities = (np.array(v)[np.argsort(curve[0])] for v in curve)
    at = PchipInterpolator(np.log(rates), qualities)
    low, high = (float(at(np.log(np.clip(r, rates[0], rates[-1])))) for r in RATES)
    return low, high


def bd_rate(
    anchor: tuple[list[float], list[float]],
    test: tuple[list[float], list[float]],
    band: tuple[float, float] = (-math.inf, math.inf),
) -> float:
    """Bjontegaard's mean difference of rate at equal quality, in percent; negative is better.

    Piecewise cubic (PCHIP) interpolation of log rate over quality (Bjontegaard, VCEG-M33, 2001, with
    the interpolation of the JVET common test conditions), over the range that both curves and the band
    share; NaN where they share none.

    Args:
        anchor, test: rates and qualities of one curve each.
        band: range of qualities.
    """
    curves = []
    for rates, qualities in (anchor, test):
        order = np.argsort(qualities)
        curves.append((np.log(rates)[order], np.asarray(qualities)[order]))
    low = max(band[0], *(q[0] for _, q in curves))
    high = min(band[1], *(q[-1] for _, q in curves))
    if high <= low:
        return math.nan
    areas = [PchipInterpolator(q, r).integrate(low, high) for r, q in curves]
    return 100 * math.expm1((areas[1] - areas[0]) / (high - low))
