"""Transform, model and quantiser: the properties that the codec rests on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hvcodec import engine, modelfile, steps, tables, transform
from hvcodec.ans import Stack
from hvcodec.checkerboard import at_place, merge, place, take, together
from hvcodec.encoder import push
from hvcodec.ladder import GROUPED, LAYERS, places
from hvcodec.likelihood import bits, bounded, wide_part
from hvcodec.mixture import Mixture
from hvcodec.model import Config, Model, model_of
from hvcodec.network import at_place as at_place_rows
from hvcodec.network import put
from hvcodec.network import take as take_rows
from hvcodec.objective import objective
from hvcodec.quantise import quantise
from hvcodec.steps import BITS_PER_SQUARED_ERROR
from hvcodec.torch_transform import Transform, haar, unhaar
from hvcodec.train import grow

TINY = Config(
    widths=(16, 16, 16, 16),
    blocks=(1,) * len(LAYERS),
    analysis_width=8,
    analysis_blocks=1,
    closing_blocks=1,
    middle_width=8,
    middle_blocks=1,
    synthesis_width=8,
    synthesis_blocks=1,
)
BALANCED = steps.betas(None)


def random_model(seed: int = 0, groups: int = 1) -> Model:
    """A tiny model none of whose weights is zero."""
    torch.manual_seed(seed)
    model = Model(replace(TINY, groups=groups, follower_width=8))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network():
    return engine.load(modelfile.locate())


def test_the_transform_is_orthonormal_whatever_it_learned():
    torch.manual_seed(0)
    transform = Transform()
    transform.rotations.data.normal_(0, 0.5)
    pixels = 50 * torch.randn(2, 3, 128, 192)
    with torch.no_grad():
        latents = transform(pixels)
        assert torch.allclose(transform.inverse(latents), pixels, atol=1e-3)
    energy = sum(float(y.square().sum()) for y in latents)
    assert energy == pytest.approx(float(pixels.square().sum()), rel=1e-5)
    assert [y.shape[1] for y in latents] == [layer.channels for layer in LAYERS]
    assert [128 // y.shape[2] for y in latents] == [layer.stride for layer in LAYERS]


def test_the_transform_that_runs_is_the_one_that_was_trained():
    torch.manual_seed(0)
    trained = Transform()
    trained.rotations.data.normal_(0, 0.3)
    turns = torch.round(trained.turns() / transform.WEIGHT_UNIT).to(torch.int16).detach().numpy()
    runs = transform.Transform(turns)
    pixels = np.random.default_rng(0).uniform(-128, 127, (128, 192, 3)).astype(np.float32)
    with torch.no_grad():
        expected = trained(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    latents = runs.split(runs.blocks(pixels))
    for a, b in zip(latents, expected):
        assert np.allclose(a, b[0].permute(1, 2, 0), atol=0.3)
    assert np.abs(runs.pixels(runs.join(latents)) - pixels).max() < 0.1
    with pytest.raises(ValueError, match="turns"):
        transform.Transform(turns[:5])


def test_the_network_that_runs_is_the_one_that_was_trained(network, photo):
    """Up to what rounding does: exact sums cost less than a thousandth of the rate."""
    indices = steps.step_indices(0.02, BALANCED)
    latents = network.analyse(np.asarray(photo), indices)[0]
    model = model_of(network.path)
    row = torch.tensor([indices])
    spent = {"exact": 0.0, "trained": 0.0}

    def spend(who, at, mean, log2_scale, shape):
        """Bits of the nearest symbols, all arrays H x W x C."""
        y = at_place_rows(latents[at.layer], at)
        delta = steps.step_size(indices[at.layer])
        symbols = torch.round(torch.from_numpy(y - mean) / delta)
        scale = torch.exp2(torch.from_numpy(log2_scale)) / delta
        parts = wide_part(model.tail, torch.from_numpy(shape))
        spent[who] += float(bits(symbols, scale, *parts).sum(dtype=torch.float64))
        return y - mean

    def trained(at, prior):
        residual = spend("trained", at, *(part[0].permute(1, 2, 0).numpy() for part in prior))
        return torch.from_numpy(residual).permute(2, 0, 1)[None]

    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() - 128
    with torch.no_grad():
        network.network.descend(
            indices, indices, 256, 384, lambda at, prior: spend("exact", at, *prior)
        )
        model.descend(row, row, 256, 384, trained)
        theirs = model.analyse(pixels, row)
    assert spent["exact"] < 1.001 * spent["trained"]
    for a, b, index in zip(latents, theirs, indices):
        assert np.abs(a - b[0].permute(1, 2, 0).numpy()).max() < 0.05 * steps.step_size(index)


def test_a_flat_picture_is_one_coefficient_per_colour():
    with torch.no_grad():
        latents = Transform()(torch.full((1, 3, 64, 64), 10.0))
    assert float(latents[0][0, 0, 0, 0]) == pytest.approx(10 * 64 * math.sqrt(3), rel=1e-5)
    latents[0][0, 0] = 0
    assert max(float(y.abs().max()) for y in latents) < 1e-3


def test_haar_inverts():
    planes = torch.randn(2, 3, 8, 12)
    assert torch.allclose(unhaar(*haar(planes)), planes, atol=1e-6)


@pytest.mark.parametrize("passes", [1, 2])
def test_packed_passes_cover_every_position_once(passes):
    planes = torch.arange(1.0, 2 * 3 * 4 * 6 + 1).reshape(2, 3, 4, 6)
    parts = [take(planes, p, passes) for p in range(passes)]
    assert (merge(parts) == planes).all()
    placed = [place(part, p, passes) for p, part in enumerate(parts)]
    assert (sum(placed) == planes).all()
    for p, part in enumerate(parts):
        rows = planes[0].permute(1, 2, 0).numpy()
        assert (take_rows(rows, p, passes) == part[0].permute(1, 2, 0).numpy()).all()
        into = np.zeros_like(rows)
        put(take_rows(rows, p, passes), p, passes, into, add=True)
        assert (into == placed[p][0].permute(1, 2, 0).numpy()).all()
    if passes == 2:
        assert (placed[0] == 0)[0, 0].tolist() == [
            [(row + column) % 2 == 1 for column in range(6)] for row in range(4)
        ]


def run(model, latent_change=None, height=64, width=128):
    """Priors of all passes when one layer's residuals are changed."""
    generator = torch.Generator().manual_seed(5)
    indices = torch.full((1, len(LAYERS)), 80)
    priors = []

    def choose(at, prior):
        priors.append((at.layer, at.p, prior))
        residual = 30 * torch.randn(prior.mean.shape, generator=generator)
        return residual + 25 * (at.layer == latent_change)

    with torch.no_grad():
        model.descend(indices, indices, height, width, choose)
    return priors


@pytest.mark.parametrize("changed", range(len(LAYERS)))
def test_a_prior_sees_the_layers_above_and_no_other(changed):
    model = random_model()
    for (index, p, before), (_, _, after) in zip(run(model), run(model, changed)):
        same = torch.equal(before.log2_scale, after.log2_scale)
        if index < changed or (index == changed and p == 0):
            assert same
        else:
            assert not same


@pytest.mark.parametrize("index", GROUPED)
@pytest.mark.parametrize("changed", range(3))
def test_a_group_sees_those_before_it_and_no_other(index, changed):
    model, indices = random_model(groups=2), torch.full((1, len(LAYERS)), 80)
    first = places(index, 0, True)

    def priors(change):
        found = []

        def choose(at, prior):
            found.append((at, prior.mean))
            return (
                25.0
                + torch.zeros_like(prior.mean)
                + 40 * (change and at in first[changed : changed + 1])
            )

        with torch.no_grad():
            model.descend(indices, indices, 64, 64, choose)
        return dict(found)

    before, after = priors(False), priors(True)
    assert sorted(c for at in first for c in at.channels) == list(range(LAYERS[index].channels))
    for n, at in enumerate(first):
        assert torch.equal(before[at], after[at]) == (n <= changed)


def test_groups_of_a_pass_are_put_together_again():
    index = GROUPED[1]
    planes = torch.randn(1, LAYERS[index].channels, 4, 6)
    parts = [together({at: at_place(planes, at) for at in places(index, p, True)}) for p in range(2)]
    assert torch.equal(merge(parts), planes)
    rows = planes[0].permute(1, 2, 0).numpy()
    for at in places(index, 1, True):
        assert (at_place_rows(rows, at) == at_place(planes, at)[0].permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("known", [steps.OFF, 96])
def test_a_layer_coded_is_conditioned_as_if_nothing_were_cut(known):
    model = random_model()
    coded = torch.full((1, len(LAYERS)), 80)
    cut = coded.clone()
    cut[:, 4:] = known
    seen = []
    for present in (coded, cut):
        priors = []

        def choose(_, prior, priors=priors):
            priors.append(prior)
            return torch.zeros_like(prior.mean)

        with torch.no_grad():
            model.descend(coded, present, 64, 64, choose)
        seen.append(priors)
    coded_passes = sum(layer.passes for layer in LAYERS[:4])
    for number, (a, b) in enumerate(zip(*seen)):
        assert torch.equal(a.mean, b.mean) == (number < coded_passes)


@pytest.mark.parametrize("preset", ["preview-first", "progressive"])
def test_decoder_finds_what_the_encoder_left(network, photo, preset):
    weights = steps.betas(preset)
    indices = steps.step_indices(0.01, weights)
    latents = network.analyse(np.asarray(photo), indices)
    layers, (*_, found), _ = network.encode(latents, indices, weights)
    stack = Stack(b"".join(push(layers)))
    again = network.decode(
        lambda _, index, grid: stack.pop(index, network.tables), indices, len(indices), 256, 384
    )
    assert stack.empty
    assert (found.features == again.features).all()


@pytest.mark.parametrize("quality", [20, 50, 80])
def test_coded_bytes_are_the_cross_entropy(network, photo, quality):
    indices = steps.step_indices(steps.lambda_of_quality(quality), BALANCED)
    latents = network.analyse(np.asarray(photo), indices)
    layers = network.encode(latents, indices, BALANCED).layers
    ideal = 0.0
    for coded in (one for passes in layers for one in passes):
        level = coded.index.table // tables.SHAPES + tables.SCALES_PER_OCTAVE * coded.index.shift
        ratio, weight = (part[coded.index.table % tables.SHAPES] for part in network.network.wide_parts)
        mixture = Mixture(tables.scale_of(level), ratio, weight)
        cost = mixture.bits(coded.symbols.astype(np.float32))
        ideal += float(cost[~network.tables.silent[coded.index.table]].sum())
    coded_bits = 8 * sum(map(len, push(layers)))
    assert 0.995 * ideal < coded_bits < 1.005 * ideal + 64


def test_the_objective_is_that_of_the_stream(network, photo):
    """Training's R and D at a picture are those of its file, within what tables and pixels round."""
    indices = steps.step_indices(0.02, BALANCED)
    latents = network.analyse(np.asarray(photo), indices)
    encoded = network.encode(latents, indices, BALANCED)
    bpp = 8 * sum(map(len, push(encoded.layers))) / (384 * 256)
    back = network.synthesise(*encoded.found[-1])
    mse = np.square(back.astype(float) - np.asarray(photo)).mean()
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() - 128
    row = torch.tensor([indices])
    with torch.no_grad():
        rates, distortion = objective(model_of(network.path), pixels, row, row)
    assert float(rates.sum()) == pytest.approx(bpp, rel=0.01)
    assert float(distortion) == pytest.approx(mse, rel=0.02)


def test_rates_of_missing_layers_are_zero_and_gradients_reach_everything():
    model = random_model().train().requires_grad_(True)
    pixels = 40 * torch.randn(2, 3, 64, 64)
    coded = torch.full((2, len(LAYERS)), 70)
    present = coded.clone()
    present[0, 3:] = steps.OFF
    rates, distortion = objective(model, pixels, coded, present)
    assert (rates[0, 3:] == 0).all()
    assert (rates[0, :3] > 0).all() and (rates[1, :-1] > 0).all()
    (rates.sum() + distortion.sum()).backward()
    # The last layer's own features feed nothing but the synthesis, which is there; all are reached.
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("far", [-1000.0, 1000.0])
def test_means_at_the_end_of_their_range_are_brought_back(far):
    model = random_model().train().requires_grad_(True)
    bias = model.rungs[3][1].head.bias
    means = slice(0, LAYERS[3].channels)
    bias.data[means] = far
    coded = torch.full((2, len(LAYERS)), 70)
    rates, _ = objective(model, 40 * torch.randn(2, 3, 64, 64), coded, coded)
    rates.sum().backward()
    assert (bias.grad[means] * far > 0).all()


def test_what_is_at_the_end_of_its_range_is_not_driven_further():
    x = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    for slope, found in ((1.0, [0.0, 1.0, 1.0]), (-1.0, [-1.0, -1.0, 0.0])):
        y = bounded(x, 0, 1)
        assert y.tolist() == [0.0, 0.5, 1.0]
        (gradient,) = torch.autograd.grad(slope * y.sum(), x)
        assert gradient.tolist() == found


def test_a_grown_model_computes_the_same():
    small = random_model()
    sizes = TINY.to_dict() | {
        "widths": (24, 16, 20, 32),
        "blocks": (2, 1, 1, 1, 3, 1, 2),
        "middle_width": 12,
    }
    torch.manual_seed(1)
    large = Model(Config.from_dict(sizes | {"synthesis_blocks": 3, "analysis_blocks": 2}))
    grow(large, small.state_dict())
    pixels = 40 * torch.randn(1, 3, 64, 128)
    row = torch.full((1, len(LAYERS)), 75)
    with torch.no_grad():
        before, after = (objective(m, pixels, row, row) for m in (small, large))
    for a, b in zip(before, after):
        assert torch.allclose(a, b, rtol=1e-4)
    with pytest.raises(RuntimeError):
        grow(small, large.state_dict())


def test_the_quantiser_minimises_rate_and_distortion():
    targets = torch.linspace(-4, 4, 401)
    ratio, weight = torch.tensor(3.0), torch.tensor(0.2)
    for scale in (torch.tensor(0.2), torch.tensor(1.5)):
        chosen = quantise(targets, scale, ratio, weight)

        def cost(symbols, scale=scale):
            error = BITS_PER_SQUARED_ERROR * (targets - symbols).square()
            return bits(symbols, scale, ratio, weight) + error

        candidates = torch.stack([cost(torch.full_like(targets, float(k))) for k in range(-5, 6)])
        assert (cost(chosen) <= candidates.min(0).values + 1e-3).all()


def test_steps_follow_the_formula():
    for lam, beta in ((0.01, 1.0), (0.2, 4.0)):
        delta = steps.step_size(steps.step_index(lam, beta))
        ideal = steps.KAPPA * math.sqrt(18 * beta / (lam * math.log(2)))
        assert abs(math.log2(delta / ideal)) <= 0.5 / steps.STEPS_PER_OCTAVE + 1e-9
    assert steps.step_index(0.01, math.inf) == steps.OFF
    assert steps.step_index(1e9, 1) == 0
    assert steps.step_index(1e-12, 1) == steps.MAX_INDEX


def test_conditioning_is_a_sum_of_one_table_per_layer():
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.integers(0, 256, (50, len(LAYERS))))
    base = torch.full((1, len(LAYERS)), 80)
    linear = torch.nn.Linear(Model.condition(base).shape[1], 3, bias=False)
    with torch.no_grad():
        whole = linear(Model.condition(rows))
        parts = []
        for layer in range(len(LAYERS)):
            one = base.repeat(len(rows), 1)
            one[:, layer] = rows[:, layer]
            parts.append(linear(Model.condition(one)) - linear(Model.condition(base)))
        assert torch.allclose(whole, sum(parts) + linear(Model.condition(base)), atol=1e-5)
