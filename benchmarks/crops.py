"""Which pictures to look at, chosen by the numbers, and every codec's files of equal bytes for them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from contenders import CLASSICAL, Codec, ours
from metrics import RATES, in_decibels, ms_ssim, psnr
from rd import Pick, curve, leads, similarity

import hvcodec

SHOWN = ("jpeg", "webp", "avif", "jpegxl")
CLOSEST = "avif"  # of those shown, the one that comes nearest
SIDE, STRIDE = 256, 64  # of the crops, and of the places where they may lie, in pixels
ROUNDS = 8  # of bisection: a step of the result is a 256th of a codec's range of settings


@dataclass(frozen=True)
class Choice:
    """A picture and a size, and why these.

    Attributes:
        why: in words.
        rival: name of the codec that it is about.
        picture: file name.
        bpp: of the rival's file, bits per pixel; all others are made as large.
        lead: of hvcodec at that size in dB; negative: it is behind.
        by: measure of the lead, which picks the crop too, of two uint8 arrays H x W x 3, in dB.
    """

    why: str
    rival: str
    picture: str
    bpp: float
    lead: float
    by: Callable[[np.ndarray, np.ndarray], float]


def similarity_dB(a: np.ndarray, b: np.ndarray) -> float:
    """MS-SSIM in decibels."""
    return in_decibels([ms_ssim(a, b)])[0]


def choose(results: dict[str, dict]) -> list[Choice]:
    """Where hvcodec does worst, where it is in the middle, and where it does best, at usual rates."""

    def sorted_leads(rival: str, pick: Pick) -> list[tuple[float, str, float]]:
        found = leads(results[rival]["pictures"], results["hvcodec"]["pictures"], pick)
        return sorted(lead for lead in found if RATES[0] <= lead[2] <= RATES[1])

    def choice(why: str, rival: str, lead: tuple[float, str, float], by: Callable = psnr) -> Choice:
        return Choice(why, rival, lead[1], lead[2], lead[0], by)

    least, nearest = min((sorted_leads(rival, curve)[0], rival) for rival in SHOWN)
    over = sorted_leads(CLOSEST, curve)
    behind = sorted_leads(CLOSEST, similarity)[0]
    return [
        choice("Worst by MS-SSIM", CLOSEST, behind, similarity_dB),
        choice("Worst by PSNR", nearest, least),
        choice("The middle by PSNR", CLOSEST, over[len(over) // 2]),
        choice("Best by PSNR", CLOSEST, over[-1]),
    ]


def fit(codec: Codec, pixels: np.ndarray, size: int) -> bytes:
    """The codec's largest file of at most `size` bytes, or its smallest if that is larger."""
    low, high = codec.settings[0], codec.settings[-1]
    best = codec.encode(pixels, low)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        data = codec.encode(pixels, middle)
        if len(data) <= size:
            low, best = middle, data
        else:
            high = middle
    return best


@dataclass(frozen=True)
class Shot:
    """A decoded file: whole picture, uint8 H x W x 3, bytes, bits per pixel, PSNR and MS-SSIM in dB."""

    name: str
    pixels: np.ndarray
    size: int
    bpp: float
    psnr: float
    ms_ssim: float


def shot(name: str, data: bytes, decoded: np.ndarray, original: np.ndarray) -> Shot:
    bpp = 8 * len(data) / (original.shape[0] * original.shape[1])
    measures = psnr(original, decoded), similarity_dB(original, decoded)
    return Shot(name, decoded, len(data), bpp, *measures)


def shots(choice: Choice, original: np.ndarray, model: str | None = None) -> dict[str, Shot]:
    """Files of the size of the rival's, of every codec that is shown, by name; ours first."""
    size = round(choice.bpp * original.shape[0] * original.shape[1] / 8)
    found = {}
    for codec in (ours(model), *(c for c in CLASSICAL if c.name in SHOWN)):
        data = fit(codec, original, size)
        found[codec.name] = shot(codec.name, data, codec.decode(data), original)
    return found


def worst_place(choice: Choice, original: np.ndarray, found: dict[str, Shot]) -> tuple[slice, slice]:
    """Rows and columns of the crop where hvcodec is furthest behind, by the choice's measure."""
    height, width = original.shape[:2]
    places = [
        (slice(y, y + SIDE), slice(x, x + SIDE))
        for y in range(0, max(height - SIDE, 0) + 1, STRIDE)
        for x in range(0, max(width - SIDE, 0) + 1, STRIDE)
    ]

    def lead(place: tuple[slice, slice]) -> float:
        mine, rival = (
            choice.by(original[place], found[name].pixels[place]) for name in ("hvcodec", choice.rival)
        )
        return mine - rival

    return min(places, key=lead)


def cuts(original: np.ndarray, quality: float, model: str | None = None) -> list[Shot]:
    """One progressive file at some of its cuts, each at least twice as large as the one before."""
    data = hvcodec.encode(original, quality, "progressive", model)
    *points, whole = hvcodec.info(data)["cut_points"]
    chosen: list[int] = []
    for point in points:
        if not chosen or point >= 2 * chosen[-1]:
            chosen.append(point)
    return [
        shot("", data[:n], np.asarray(hvcodec.decode(data[:n], model=model)), original)
        for n in (*chosen, whole)
    ]
