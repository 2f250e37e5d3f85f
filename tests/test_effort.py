"""What the encoder may do beyond the plain network: search, tune for eyes."""

import math

import numpy as np
import pytest
import torch
from conftest import psnr

import hvcodec
from hvcodec import container, effort, steps, tuning
from hvcodec.checkerboard import take

LAM = 0.02


def cost(photo, data, weights=None):
    """J of a file in bits per pixel: sum of beta_l R_l + lambda MSE."""
    mse = np.square(np.asarray(hvcodec.decode(data)).astype(float) - np.asarray(photo)).mean()
    sizes = {layer["name"]: layer["length"] for layer in hvcodec.info(data)["layers"]}
    beta = weights if isinstance(weights, dict) else {}
    # A layer that is off has its check alone, and the coder's last words if it is the first.
    finite = {name: b for name, b in beta.items() if b < math.inf}
    bits = sum(8 * size * finite.get(name, 1.0) for name, size in sizes.items())
    return bits / (photo.width * photo.height) + LAM * mse


def test_effort_lowers_the_objective_and_shows_how_far_it_is(photo):
    shares = []
    plain = hvcodec.encode(photo, lam=LAM)
    searched = hvcodec.encode(photo, lam=LAM, effort=2, progress=shares.append)
    assert cost(photo, searched) < 0.995 * cost(photo, plain)
    assert shares == sorted(shares) and 0 < shares[0] < 0.5 and shares[-1] == 1
    assert hvcodec.encode(photo, lam=LAM, effort=2) == searched


@pytest.mark.parametrize("weights", ["progressive", {"z1": math.inf, "z3": 2.0}])
def test_effort_lowers_the_objective_of_any_layers(photo, weights):
    small = photo.crop((64, 64, 256, 192))
    plain = hvcodec.encode(small, lam=LAM, rate_weights=weights)
    searched = hvcodec.encode(small, lam=LAM, rate_weights=weights, effort=2)
    assert cost(small, searched, weights) < cost(small, plain, weights)


def test_more_effort_goes_on_from_where_less_stops(photo):
    small = photo.crop((64, 64, 256, 192))
    little, more = (hvcodec.encode(small, lam=LAM, effort=effort) for effort in (1, 4))
    assert cost(small, more) < 0.998 * cost(small, little)


@pytest.mark.parametrize("weights,last", [(None, 7), ("progressive", 2)])
def test_the_search_counts_what_the_last_layers_cost(photo, monkeypatch, weights, last):
    counted = []
    aims = effort.aims

    def noting(*arguments):
        counted.append(aims(*arguments))
        return counted[-1]

    monkeypatch.setattr(effort, "aims", noting)
    small = photo.crop((64, 64, 256, 192))
    settings = {"lam": LAM, "rate_weights": weights, "bits_back": False}
    hvcodec.encode(small, effort=1, **settings)
    plain = hvcodec.encode(small, **settings)
    bits, _ = counted[0]
    names = [layer["name"] for layer in hvcodec.info(plain)["layers"]]
    own = dict.fromkeys(names, 0) | dict(list(zip(names, steps.betas(weights)))[-last:])
    assert bits / (192 * 128) == pytest.approx(cost(small, plain, own), rel=0.02)


@pytest.mark.parametrize(
    "away,where",
    [((1, -1), 0), ((1, -1), 0.1), ((1, -1), -0.25), ((0.6, -1.4), 0.45), ((1.5, -0.8), -0.3)],
)
def test_without_later_effects_a_latent_is_its_own_aim(away, where):
    worth, delta, value = torch.tensor(8.0), torch.tensor(2.0), torch.tensor(7.0)
    to = tuple(value + move * delta for move in away)
    moves = effort._Moves(torch.zeros(()), value, delta, to, (torch.zeros(()),) * 2, worth)
    slope = worth * -2 * where  # of the squared error, in steps
    bend = worth / delta**2
    aim = moves.aim(slope, bend)
    assert (float(aim) - 7) / 2 == pytest.approx(where, abs=1e-5)


def test_where_no_symbol_can_move_a_latent_stays():
    one = torch.ones(())
    nowhere = (torch.tensor(math.inf),) * 2
    moves = effort._Moves(0 * one, one, one, (one, one), nowhere, one)
    assert float(moves.aim(5 * one, one)) == 1


def test_effort_where_there_is_little_or_nothing_to_search(photo):
    small = photo.crop((0, 0, 64, 64))
    headless, nothing = {"z7": math.inf}, {f"z{n}": math.inf for n in range(1, 8)}
    plain, searched = (hvcodec.encode(small, lam=LAM, rate_weights=headless, effort=e) for e in (0, 1))
    assert cost(small, searched, headless) <= cost(small, plain, headless)
    plain, searched = (hvcodec.encode(small, rate_weights=nothing, effort=e) for e in (0, 1))
    assert searched == plain


def test_effort_in_several_windows_and_tiles(photo, monkeypatch):
    monkeypatch.setattr(effort, "WINDOW", 2)
    monkeypatch.setattr(container, "tile_size", lambda width, height: 256)
    shares = []
    plain = hvcodec.encode(photo, lam=LAM)
    searched = hvcodec.encode(photo, lam=LAM, effort=1, progress=shares.append)
    assert cost(photo, searched) < cost(photo, plain)
    assert shares == sorted(shares) and shares[-1] == 1


def test_effort_stays_within_a_target(photo):
    data = hvcodec.encode(photo, target_size=8000, effort=1)
    assert 0.95 * 8000 < len(data) <= 8000
    shares = []
    back = hvcodec.decode(hvcodec.encode(photo, target_psnr=32, effort=1, progress=shares.append))
    assert 31.6 < psnr(photo, back) <= 32
    assert shares == sorted(shares)


def test_wrong_effort_and_tuning(photo):
    for wrong in ({"effort": 10}, {"effort": -1}, {"effort": 1.5}, {"effort": 2.0}, {"tune": "ssim"}):
        with pytest.raises(hvcodec.UsageError):
            hvcodec.encode(photo, **wrong)


def test_windows_cover_a_picture_once():
    seen = np.zeros((30, 13), int)
    for rows, columns in effort.windows(30 * 64, 13 * 64):
        seen[rows, columns] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("stride,passes", [(64, 1), (32, 2), (8, 2), (1, 1)])
def test_costs_are_counted_in_the_block_that_they_belong_to(stride, passes):
    planes = torch.rand(1, 3, 128 // stride, 192 // stride)
    parts = [effort._blocks(take(planes, p, passes), stride, passes) for p in range(passes)]
    size = 64 // stride
    block = planes[:, :, :size, size : 2 * size].sum()
    assert float(sum(parts)[0, 0, 1]) == pytest.approx(float(block), rel=1e-5)


def test_tuning_for_eyes_moves_bits_to_where_the_picture_is_smooth():
    rng = np.random.default_rng(0)
    pixels = np.full((128, 256, 3), 128.0)
    pixels[:, :128] += rng.normal(0, 4, (128, 128, 1))
    pixels[:, 128:] += rng.normal(0, 50, (128, 128, 1))
    image = pixels.clip(0, 255).astype(np.uint8)
    centred = image.astype(np.float32) - 128
    logs = tuning.log_importance(centred, "ms-ssim")
    importance = tuning.importance(logs, float(logs.mean()))
    assert importance.shape == (16, 32)
    assert importance[:, :12].mean() > 3 * importance[:, 20:].mean()
    assert (tuning.log_importance(centred, "psnr") == 0).all()
    plain, tuned = (hvcodec.encode(image, 60, tune=tune) for tune in tuning.TUNINGS)
    errors = [
        np.square(np.asarray(hvcodec.decode(d)).astype(float) - image).mean((0, 2))
        for d in (plain, tuned)
    ]
    smooth, busy = ([e[half].mean() for e in errors] for half in (slice(0, 96), slice(160, 256)))
    assert busy[1] > busy[0]
    assert smooth[1] / busy[1] < smooth[0] / busy[0]
    assert psnr(image, hvcodec.decode(plain)) > psnr(image, hvcodec.decode(tuned))
