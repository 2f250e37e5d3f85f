"""Information traded between latents: exact checks, and the whole experiment in miniature."""

# ruff: noqa: E402 (nothing can be imported before it is known that PyTorch is here)

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from sklearn.datasets import load_digits

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import hit
import hit_codec

import hvcodec
from hvcodec.hit import classifier, data, disk, exact, grid, metrics, models, report, theory, trends
from hvcodec.hit.objective import infer, losses
from hvcodec.hit.train import PRESETS, Cell, train

GRID = grid.GRIDS["mnist"]
TINY = Cell(preset="tiny", steps=120, batch=32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with small handwritten digits in the place of MNIST."""
    digits = load_digits()
    large = np.kron(digits.images * 15, np.ones((3, 3)))
    x = np.pad(large, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    folder = tmp_path_factory.mktemp("pictures")
    np.savez(
        folder / "mnist.npz",
        x_train=x[:1200],
        y_train=digits.target[:1200],
        x_test=x[1200:1500],
        y_test=digits.target[1200:1500],
    )
    return folder


@pytest.fixture(scope="module")
def trained(pictures):
    return train(TINY, data.load("mnist", pictures).train)


@pytest.mark.parametrize("check", exact.checks(), ids=lambda check: check.id)
def test_what_holds_exactly(check):
    assert check.passed, check


def test_the_accuracy_bound_grows_to_one():
    entropy = math.log(10)
    bounds = [theory.accuracy_bound(i, 10, entropy) for i in np.linspace(0, 3, 50)]
    assert bounds[0] == pytest.approx(0.1) and bounds[-1] == 1
    assert (np.diff(bounds) >= 0).all()
    with pytest.raises(hvcodec.UsageError):
        theory.accuracy_bound(-0.1, 10, entropy)
    with pytest.raises(hvcodec.UsageError):
        theory.information_needed(0.05, 10, entropy)


def test_no_classifier_beats_the_bound_where_information_is_known():
    """A symmetric channel is the case of equality: right with 0.7, else any of the nine others."""
    right = 0.7
    conditional = np.full((10, 10), 0.3 / 9) + np.eye(10) * (right - 0.3 / 9)
    information = math.log(10) - float(theory.entropy(conditional[0]))
    assert theory.accuracy_bound(information, 10, math.log(10)) == pytest.approx(right)


def test_psnr_is_bounded_by_the_rate():
    """Gaussian data at its rate-distortion function, where the bound is met for small errors."""
    dimensions, variance, sigma = 100, 0.04, 0.001
    entropy = dimensions / 2 * math.log(2 * math.pi * math.e * variance)
    rate = dimensions / 2 * math.log(variance / sigma**2)
    # D at rate R is the entropy of noise of variance sigma^2: MSE = sigma^2.
    bound = theory.psnr_bound(entropy, np.array([rate / 2, rate / 2]), sigma, dimensions)
    assert bound == pytest.approx(-10 * math.log10(sigma**2))
    assert theory.psnr_bound(entropy, np.array([10 * rate]), sigma, dimensions) == math.inf
    for wrong in ((np.array([-1.0]), sigma), (np.array([1.0]), 0.0)):
        with pytest.raises(hvcodec.UsageError):
            theory.psnr_bound(entropy, *wrong, dimensions)


def posteriors(labels, distance, scale, rng):
    """Two classes, apart by a distance in the first of eight dimensions, and noise in the others."""
    mean = rng.normal(size=(len(labels), 8))
    mean[:, 0] = distance * (labels - 0.5)
    return mean + scale * rng.normal(size=mean.shape), mean, np.full(mean.shape, scale)


def test_information_is_found_where_the_rate_is_small():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=1500)
    for distance, low, high in ((0.0, -0.02, 0.02), (20.0, 0.67, 0.7)):
        found = theory.information(*posteriors(labels, distance, 2.0, rng), labels, rng)
        assert low < found.nats < high and not found.saturated


def test_a_saturated_estimate_is_reported():
    """Labels that z knows nothing of seem known once each posterior is alone."""
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=1500)
    found = theory.information(*posteriors(labels, 0.0, 0.02, rng), labels, rng)
    assert found.nats > 0.5 and found.saturated


def test_a_classifiers_information_is_a_lower_bound():
    rng = np.random.default_rng(2)
    labels = rng.integers(2, size=4000)
    log_odds = 2.0 * (2 * labels - 1) + 2 * rng.normal(size=labels.size)  # exact for these
    told = np.stack([-log_odds / 2, log_odds / 2], 1)
    good, overconfident = (theory.information_of_classifier(k * told, labels) for k in (1, 3))
    assert 0 < overconfident < good < theory.label_entropy(labels)


def test_the_score_of_samples():
    sure, lost = np.eye(10), np.full((10, 10), 0.1)
    assert theory.inception(sure).log_score == pytest.approx(math.log(10))
    assert theory.inception(lost).log_score == pytest.approx(0)
    assert theory.sharpness_gap_bound(0, 10) == 0
    assert theory.sharpness_gap_bound(9, 10) == math.log(10)


def test_the_diversity_of_near_distributions_is_near():
    rng = np.random.default_rng(4)
    assert theory.diversity_gap_bound(0, 10) == 0
    assert theory.diversity_gap_bound(9, 10) == pytest.approx(math.log(10))
    tight = 0.0
    for sharpness in np.geomspace(0.02, 50, 300):
        p, q = rng.dirichlet(np.full(10, sharpness), 2) + 1e-12
        apart = abs(float(theory.entropy(p) - theory.entropy(q)))
        bound = theory.diversity_gap_bound(float((p * np.log(p / q)).sum()), 10)
        assert apart <= bound + 1e-9
        tight = max(tight, apart / bound)
    assert tight > 0.5


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("layers", [2, 3])
def test_every_family_learns_and_hears_its_weights(family, layers, pictures):
    cell = Cell(preset="tiny", family=family, beta=(1.0,) * layers, amortised=True, steps=3, batch=16)
    if family == "bottom-up" and layers == 3:
        with pytest.raises(hvcodec.UsageError):
            cell.model()
        return
    some = data.load("mnist", pictures).train.part(slice(64))
    model = train(cell, some)
    low, high = (metrics.rates(model, some, (beta,) * layers)["rates"] for beta in (0.1, 10.0))
    assert len(low) == layers and low != high
    losses(model, some.batch(slice(8)), torch.zeros(8, layers)).weighted(
        torch.ones(layers)
    ).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_training_lowers_the_objective(trained, pictures):
    held = data.load("mnist", pictures).test
    fresh = TINY.model()
    for beta in ((1.0, 1.0), (0.3, 3.0)):
        weights = torch.tensor(beta)
        with torch.no_grad():
            before, after = (
                float(losses(m, held.batch(slice(200))).weighted(weights).mean())
                for m in (fresh, trained)
            )
        assert after < 0.7 * before


def test_an_amortised_model_is_not_run_without_weights(pictures):
    some = data.load("mnist", pictures).test.part(slice(10))
    model = replace(TINY, amortised=True).model()
    for beta in (None, (1.0,)):
        with pytest.raises(hvcodec.UsageError):
            metrics.rates(model, some, beta)


def test_layers_that_are_not_sent_cost_nothing(trained, pictures):
    x = data.load("mnist", pictures).test.batch(slice(50))
    found = losses(trained, x, layers=1)
    assert (found.rates[:, 1] == 0).all() and (found.rates[:, 0] > 0).all()
    with pytest.raises(hvcodec.UsageError):
        losses(trained, x, layers=3)
    with pytest.raises(hvcodec.UsageError):
        losses(models.make("bottom-up", models.TINY), x, layers=1)


def test_a_dear_layer_collapses(pictures):
    held = data.load("mnist", pictures)
    share = []
    for beta in ((300.0, 1.0), (1.0, 300.0)):
        cell = Cell(preset="tiny", beta=beta, steps=100, batch=16)
        rates = metrics.rates(train(cell, held.train), held.test)["rates"]
        share.append(rates[0] / sum(rates))
    assert share[0] < 0.05 < 0.95 < share[1]


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_training_that_diverges_is_told(pictures, monkeypatch, sigma):
    monkeypatch.setitem(PRESETS, "tiny", replace(models.TINY, sigma=sigma))
    with pytest.raises(ArithmeticError):
        train(Cell(preset="tiny", steps=5, batch=8, rate=1e30), data.load("mnist", pictures).train)


def test_the_experiment_in_miniature(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "SAMPLES", (50, 10))
    monkeypatch.setattr(grid, "BETAS", (0.1, 10.0))
    cells = [TINY, Cell(preset="tiny", steps=10, batch=32, amortised=True)]
    cells.append(Cell(preset="tiny", steps=10, batch=32, family="bottom-up"))
    cells.append(Cell(preset="tiny", steps=40, batch=32, sent=(0.5, 0.5)))
    assert len({cell.name for cell in cells}) == len(cells)
    grid.run(cells, pictures, tmp_path, workers=1)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    grid.run(cells, pictures, tmp_path, workers=1)
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    results = grid.results(tmp_path)
    assert len(results) == 3 + 4
    by_id = {check.id: check for check in trends.checks(results, "mnist")}
    assert by_id["T9"].passed and by_id["T1"].passed is None
    assert len({json.dumps(r["rates"]) for r in results if r["cell"]["amortised"]}) == 4
    # What is on disk is what was scored.
    model = models.load(tmp_path / f"{TINY.name}.safetensors")
    again = metrics.rates(model, data.load("mnist", pictures).test)
    plain = next(r for r in results if r["cell"]["steps"] == TINY.steps)
    assert again["distortion"] == pytest.approx(plain["rates"][1]["distortion"], rel=1e-6)


def test_a_second_round_starts_from_the_network_that_is_best_at_its_weights(pictures, tmp_path):
    """At the second weights: the first's, as its own had no time to learn anything."""
    cells = [replace(TINY, beta=beta, first=60, steps=1) for beta in ((0.1, 0.1), (0.2, 0.1))]
    good, bad = (tmp_path / f"{cell.round_one.name}.safetensors" for cell in cells)
    held = data.load("mnist", pictures)
    models.save(train(cells[0].round_one, held.train), good)
    models.save(cells[1].model(), bad)
    other_seed = replace(cells[1], seed=2, first=2)
    grid.run([*cells, other_seed], pictures, tmp_path, workers=1)
    results = {(*r["beta"], r["cell"]["seed"]): r for r in grid.results(tmp_path) if "start" in r}
    starts = {which: result["start"] for which, result in results.items()}
    assert starts == {
        (0.1, 0.1, 1): good.stem,
        (0.2, 0.1, 1): good.stem,
        (0.2, 0.1, 2): other_seed.round_one.name,
    }
    # From a pool, nothing else is made; of what is not scored only rates are known.
    beside = replace(cells[1], beta=(0.3, 0.1))
    files = set(tmp_path.iterdir())
    grid.run([beside], pictures, tmp_path, workers=1, pool=cells, scored=False)
    made = {path.name for path in set(tmp_path.iterdir()) - files}
    assert made == {f"{beside.name}.json", f"{beside.name}.safetensors"}
    (lone,) = (r for r in grid.results(tmp_path) if r["beta"] == beside.beta)
    assert lone["start"] == good.stem and "rates" in lone and "accuracy" not in lone
    # One step from there is not far.
    before = metrics.rates(models.load(good), held.test)["distortion"]
    assert results[0.2, 0.1, 1]["rates"][1]["distortion"] == pytest.approx(before, rel=0.05)


def test_a_first_round_that_fails_stops_no_other_cell(pictures, tmp_path, monkeypatch):
    def sometimes(cell, data, start=None):
        if cell.beta == (0.1, 0.1) and not cell.first:
            raise ArithmeticError("this one diverged")
        return cell.model()

    monkeypatch.setattr(grid, "train", sometimes)
    monkeypatch.setattr(metrics, "SAMPLES", (50, 10))
    cells = [replace(TINY, beta=beta, first=3) for beta in ((0.1, 0.1), (0.2, 0.1))]
    alone = replace(cells[0], seed=2)
    with pytest.raises(hvcodec.HvcError, match="this one diverged; this one diverged"):
        grid.run([*cells, alone], pictures, tmp_path, workers=1)
    found = [r for r in grid.results(tmp_path) if r["cell"]["first"]]
    assert {r["start"] for r in found} == {cells[1].round_one.name}
    assert {r["beta"] for r in found} == {cell.beta for cell in cells}


@pytest.mark.slow
def test_ray_trains_cells_too(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        cells = [replace(TINY, first=2, steps=2, seed=seed, family="bottom-up") for seed in (1, 2)]
        grid.run(cells, pictures, tmp_path, engine="ray")
    finally:
        ray.shutdown()
    assert {r["cell"]["seed"] for r in grid.results(tmp_path) if "start" in r} == {1, 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": "none"},
        {"preset": "none"},
        {"family": "none"},
        {"beta": (0.0, 1.0)},
        {"beta": (1.0,)},
        {"first": -1},
        {"sent": (0.5, 0.6)},
        {"sent": (1.5, -0.5)},
        {"sent": (0.5, 0.5), "family": "bottom-up"},
    ],
)
def test_a_cell_that_cannot_be_is_refused(wrong):
    with pytest.raises(hvcodec.UsageError):
        Cell(**wrong)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(hvcodec.UsageError):
        data.load("none", tmp_path)
    with pytest.raises(hvcodec.HvcError):
        data.load("mnist", tmp_path)
    (tmp_path / "mnist.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(hvcodec.HvcError):
        data.load("mnist", tmp_path)
    with pytest.raises(hvcodec.UsageError):
        grid.run([], tmp_path, tmp_path, engine="none")
    with pytest.raises(hvcodec.UsageError, match="comes before"):
        hit.group("mnist-seeds", tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(hvcodec.ModelError):
        models.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("family", ["free", "ladder", "general"])
def test_rates_are_what_is_on_disk(family, pictures):
    held = data.load("mnist", pictures)
    model = train(Cell(preset="tiny", family=family, steps=120, batch=32), held.train)
    found = disk.code(model, held.test, held.train, batch=50)
    assert found["exact"]
    assert found["bits"] == pytest.approx(found["elbo"], rel=0.02)
    # So few pictures leave a third of a bit of chance.
    assert found["rates"] == pytest.approx(found["divergences"], rel=0.1, abs=0.6)
    for other in (models.make("bottom-up", models.TINY), models.make(family, models.TINY, True)):
        with pytest.raises(hvcodec.UsageError):
            disk.code(other, held.test, held.train)


def ideal(beta, gain=(8.0, 30.0)):
    """A cell whose layers do as theory says, with a little trading: r_l = gain_l / beta_l."""
    rates = [gain[0] / beta[0], gain[1] / beta[1]]
    rates[0] *= 1 + 0.1 * math.log(beta[1] * 10)
    rates[1] *= 1 + 0.1 * math.log(beta[0] * 10)
    cell = {**json.loads(json.dumps(asdict(GRID))), "beta": list(beta)}
    return {"cell": cell, "beta": beta, "rates": [{"rates": rates, "distortion": 100.0}] * 2}


@pytest.mark.parametrize(
    "other",
    [
        {"beta": (1.0, 1.0, 1.0)},
        {"beta": (1.0, 1.0, 1.0), "sent": (0.3, 0.3, 0.4)},
        {"sent": (0.5, 0.5)},
        {"beta": (1.0, 2.0)},
        {"family": "ladder"},
    ],
)
def test_cells_beside_the_grid_are_not_of_it(other):
    assert trends.in_grid({"cell": asdict(replace(GRID, beta=(0.1, 10.0), seed=3))}, "mnist")
    assert not trends.in_grid({"cell": json.loads(json.dumps(asdict(replace(GRID, **other))))}, "mnist")


def test_trends_are_seen_and_their_absence_too():
    betas = [c.beta for c in grid.grid(Cell())]
    good, uneven = (trends.Grid([ideal(b, g) for b in betas], "mnist") for g in ((8, 30), (8000, 30)))
    swapped = [{**ideal(b), "rates": ideal(tuple(1 / x for x in b))["rates"]} for b in betas]
    bad = trends.Grid(swapped, "mnist")
    assert good.complete and bad.complete
    for test in (trends._t1, trends._t2):
        assert test(good).passed and not test(bad).passed
    assert trends._t7(good).passed and not trends._t7(uneven).passed


def known(beta, gain=(8.0, 30.0), **changes):
    """A cell at the optimum of rates gain_l / beta_l: dL / dbeta_l = r_l gives L = sum gain_l ln beta_l
    and a constant. z_2 tells classes, all layers make the picture, samples are best in the middle."""
    result = ideal(beta)
    rates = [g / b for g, b in zip(gain, beta)]
    distortion = 200 + sum(g * math.log(b) - g for g, b in zip(gain, beta))
    # A little of z_1's price, too: R(z_2) alone would be the same in a row.
    right = 0.5 + 0.004 * rates[0] + 1e-4 * beta[1]
    score = {"log_score": 2 - math.log(beta[0]) ** 2 - math.log(beta[1]) ** 2}
    score |= {"log_diversity": 2.2, "log_sharpness": score["log_score"] - 2.2}
    about = {
        "rates": [{"rates": rates, "distortion": distortion}] * 2,
        "reconstructions": [dict.fromkeys(("psnr", "psnr_of_samples"), 10 + math.log(sum(rates)))] * 2,
        "accuracy": {"z2": {"rbf-svm": [right] * 2}, "z2 sample": {"rbf-svm": [right] * 2}},
        "samples": {"parts": [score], "whole": score, "information_top": -99.0},
        "information": {"nats": 2.0, "saturated": False},
        "cuts": [{"distortion": d, "psnr": 9.0} for d in (3.0, 2.0, 1.0)],
        "data": {"test": 10_000, "label_entropy": math.log(10)},
    }
    return {**result, **about, **changes}


def whole_grid(change=lambda beta: {}):
    results = [known(c.beta, **change(c.beta)) for c in grid.grid(Cell())]
    return trends.Grid(results, "mnist")


def steeper(beta):
    """L grows faster than rates say, and so it does nearby."""
    found = known(beta)["rates"][1]
    return {"rates": [{**found, "distortion": found["distortion"] + 10 * math.log(beta[0])}] * 2}


def test_slopes_of_the_objective_are_rates_and_other_slopes_are_seen():
    assert trends._t3(whole_grid(), []).passed
    assert trends._t3(whole_grid(), []).value < 0.02
    assert not trends._t3(whole_grid(steeper), []).passed
    # Rates that rise along the diagonal, with the slopes that belong to them.
    rising = [
        {**known(b), "rates": [{"rates": list(b), "distortion": -sum(x * x for x in b) / 2}] * 2}
        for b in (c.beta for c in grid.grid(Cell()))
    ]
    assert not trends._t3(trends.Grid(rising, "mnist"), []).passed


def test_slopes_are_measured_to_the_nearest_neighbours_there_are():
    cells = [known(c.beta) for c in grid.grid(GRID)]
    near = [known(c.beta) for c in grid.neighbours(GRID)]
    uneven = [known(c.beta, **steeper(c.beta)) for c in grid.neighbours(GRID)]
    stranger = {**near[0], "cell": {**near[0]["cell"], "seed": 2}, "rates": uneven[0]["rates"]}
    assert len(near) == len(trends.pairs(cells + near, "mnist")) == 2 * len(cells)
    assert len(trends.pairs([*cells, near[0], stranger], "mnist")) == 1
    assert trends.pairs(cells, "mnist") == []
    found, bad = (
        {check.id: check for check in trends.checks(results, "mnist")}
        for results in (cells + near, cells + uneven)
    )
    assert found["T3"].passed and found["T3"].value < 0.01 and "steps of 1.26" in found["T3"].note
    assert not bad["T3"].passed and bad["T1"] == found["T1"]


def test_pictures_go_with_the_total_rate_or_not():
    assert trends._t4(whole_grid()).passed

    def by_z2(beta):
        return {"reconstructions": [{"psnr": known(beta)["rates"][1]["rates"][0]}] * 2}

    def elsewhere(beta):
        """Still in the order of the total rate, but for one cell."""
        psnr = 99.0 if beta == (1.0, 0.1) else known(beta)["reconstructions"][1]["psnr"]
        return {"reconstructions": [{"psnr": psnr}] * 2}

    assert trends._t4(whole_grid(by_z2)).value < 0.95
    assert trends._t4(whole_grid(elsewhere)).value > 0.95
    assert not trends._t4(whole_grid(by_z2)).passed and not trends._t4(whole_grid(elsewhere)).passed


def test_classes_go_with_the_rate_of_z2_or_not():
    assert trends._t5(whole_grid()).passed

    def by_total(beta):
        right = 0.5 + 0.001 * sum(known(beta)["rates"][1]["rates"])
        return {"accuracy": {"z2": {"rbf-svm": [right] * 2}}}

    def hardly(beta):
        right = 0.5 + 1e-5 * known(beta)["rates"][1]["rates"][0] + 1e-6 * beta[1]
        return {"accuracy": {"z2": {"rbf-svm": [right] * 2}}}

    assert not trends._t5(whole_grid(by_total)).passed
    small = trends._t5(whole_grid(hardly))
    assert 0 < small.value < 2 and not small.passed


def test_three_tasks_want_three_cells():
    assert trends._t6(whole_grid()).passed
    same = whole_grid(
        lambda beta: {"samples": {"whole": {"log_score": sum(known(beta)["rates"][1]["rates"])}}}
    )
    assert not trends._t6(same).passed


def test_accuracy_is_held_under_its_bound():
    under, over = ({"z3": {"knn": [a] * 2}, "z3 sample": {"knn": [a] * 2}} for a in (0.5, 0.6))
    cell = {**known((1.0, 1.0))["cell"], "beta": [1.0] * 3}
    told = {"nats": 0.5, "saturated": False}  # at most 0.495
    three = {"cell": cell, "information": told}
    assert trends._t8([known((1.0, 1.0), **three, accuracy=under)]).passed
    assert not trends._t8([known((1.0, 1.0), **three, accuracy=over)]).passed
    empty = {"nats": 0.5, "saturated": True}
    assert trends._t8([known((1.0, 1.0), information=empty)]).passed is None


def test_the_score_has_two_parts_and_is_not_above_its_limit():
    good = known((1.0, 1.0))
    assert trends._t9([good]).passed
    for wrong in ({"log_sharpness": -1.0}, {"log_score": 2.31, "log_sharpness": 0.11}):
        score = {**good["samples"]["whole"], **wrong}
        assert not trends._t9([{**good, "samples": {**good["samples"], "whole": score}}]).passed


def test_layers_make_pictures_better_or_not():
    sent = {"cell": {**known((1.0, 1.0))["cell"], "sent": [0.5, 0.5]}}
    worse = [{"distortion": d, "psnr": 9.0} for d in (3.0, 2.0, 2.1)]
    assert trends._t10([known((1.0, 1.0), **sent)]).passed
    assert not trends._t10([known((1.0, 1.0), **sent, cuts=worse)]).passed
    assert trends._t10([known((1.0, 1.0), cuts=worse)]).passed is None


def test_every_check_is_there_without_results_and_with_them():
    names = [f"T{k}" for k in range(1, 11)]
    empty = {check.id: check.passed for check in trends.checks([], "mnist")}
    assert list(empty) == names and set(empty.values()) == {None}
    separate = [known(c.beta) for c in grid.grid(Cell())]
    one = [{**r, "cell": json.loads(json.dumps(asdict(grid.AMORTISED["mnist"])))} for r in separate]
    found = {check.id: check.passed for check in trends.checks(separate + one, "mnist")}
    assert set(names) < set(found)
    bare = ("T1", "T2", "T3", "T4", "T7", "T4 of samples")
    assert all(found[f"{name} of one network"] == found[name] for name in bare)
    assert found["one network"]


def test_one_network_is_held_against_the_worst_of_its_settings():
    betas = [c.beta for c in grid.grid(Cell())]

    def told(beta, excess):
        result = ideal(beta)
        cell = json.loads(json.dumps(asdict(grid.AMORTISED["mnist"])))
        found = result["rates"][1]
        dearer = {k: np.multiply(v, 1 + excess).tolist() for k, v in found.items()}
        return {**result, "cell": cell, "rates": [dearer] * 2}

    separate = [ideal(b) for b in betas]
    near = [told(b, 0.04) for b in betas]
    far = [told(b, 0.06 if b == (10.0, 0.1) else -0.5) for b in betas]
    assert trends.amortised(separate + near, "mnist").value == pytest.approx(0.04)
    assert trends.amortised(separate + near, "mnist").passed
    assert not trends.amortised(separate + far, "mnist").passed
    assert trends.amortised(separate + near[1:], "mnist").passed is None
    # Another such network is no setting of this one.
    longer = {**near[0], "cell": {**near[0]["cell"], "steps": 1}}
    assert trends.amortised([*separate, *near[1:], longer], "mnist").passed is None


def test_files_are_made_and_read_by_tilt(tmp_path, monkeypatch):
    monkeypatch.setattr(hit_codec, "PROBE", 3)
    monkeypatch.setattr(hit_codec, "CLOSE", 0.001)  # so the nearest of several has to do
    monkeypatch.setattr(hit_codec, "FAR", 0.1)
    digits = load_digits()
    pictures = np.kron(digits.images[:20] * 15, np.ones((1, 4, 4)))[..., None].repeat(3, 3)
    pictures, labels = pictures.astype(np.uint8), digits.target[:20] % 2
    found = []
    for tilt in (-2, 2):
        path = tmp_path / f"{tilt}.json"
        hit_codec.point(pictures, labels, tilt, 250, path)
        found.append(json.loads(path.read_text()))
    dear, cheap = found
    assert cheap["coarse_bytes"] > 1.2 * dear["coarse_bytes"]
    assert all(225 < p["bytes"] < 275 for p in found)
    assert np.shape(cheap["right"]["coarse"]["rbf-svm"]) == (20,)
    with pytest.raises(hvcodec.UsageError):
        hit_codec.point(pictures, labels, 0, 5, tmp_path / "none.json")


def test_a_report_shows_the_grid_and_what_is_beside_it(tmp_path):
    """All of it made up, so that the page's numbers are known."""

    def whole(beta, family="free", accuracy=0.5):
        score = {"log_score": 1.0, "log_diversity": 2.0, "log_sharpness": -1.0}
        result = ideal(beta)
        right = {layer: {"rbf-svm": [accuracy] * 2} for layer in ("z2", "z1", "z2 sample")}
        return {
            **result,
            "cell": {**result["cell"], "family": family},
            "reconstructions": [{"psnr": 20.0, "psnr_of_samples": 19.0, "accuracy": 0.9}] * 2,
            "accuracy": right,
            "information": {"nats": 1.0, "chance": 0.0, "saturated": beta[0] < 1},
            "samples": {"parts": [score], "whole": score, "information_top": 0.5},
            "data": {"test": 100, "label_entropy": math.log(10), "judge": 0.9},
        }

    results = [whole(c.beta) for c in grid.grid(Cell())]
    with pytest.raises(hvcodec.UsageError):
        report.write(results[1:], [], [], "mnist", tmp_path)
    checks = [exact.Check("T0", False, 0.25, 0.5, "<made up>")]
    report.write([*results, whole((1.0, 1.0), "ladder", 0.875)], checks, [], "mnist", tmp_path)
    page = (tmp_path / "mnist.html").read_text()
    ladder = "<td>ladder (1.0, 1.0), seed 1</td><td>9.84, 36.91</td><td>100.00</td><td>146.75</td>"
    assert ladder + "<td>20.00</td><td>0.8750, 0.8750</td>" in page
    assert "<td>fail</td><td>0.25</td><td>0.5</td><td>&lt;made up&gt;</td>" in page
    for name in ("maps", "over-rate", "under-bound", "surface"):
        assert f"mnist-{name}.png" in page and (tmp_path / f"mnist-{name}.png").stat().st_size > 10_000


def test_a_picture_is_judged(pictures, tmp_path):
    held = data.load("mnist", pictures)
    judge = classifier.classifier("mnist", held, tmp_path)
    told = judge.probabilities(held.test.batch(slice(None)))
    assert told.sum(1) == pytest.approx(1)
    assert (told.argmax(1) == held.test.labels).mean() > 0.8


def test_a_walk_down_ends_in_all_layers(trained, pictures):
    x = data.load("mnist", pictures).test.batch(slice(4))
    steps = infer(trained, x)
    assert [tuple(s.z.shape) for s in steps] == [(4, size) for size in trained.sizes]
