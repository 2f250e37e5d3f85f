"""Information traded between latents: exact checks, and the whole experiment in miniature."""

# ruff: noqa: E402 (nothing can be imported before it is known that PyTorch is here)

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from sklearn.datasets import load_digits

import hvcodec
from hvcodec.hit import classifier, data, disk, exact, grid, metrics, models, report, theory, trends
from hvcodec.hit.objective import infer, losses
from hvcodec.hit.train import Cell, train

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


def test_layers_that_are_not_sent_cost_nothing(trained, pictures):
    x = data.load("mnist", pictures).test.batch(slice(50))
    found = losses(trained, x, layers=1)
    assert (found.rates[:, 1] == 0).all() and (found.rates[:, 0] > 0).all()
    with pytest.raises(hvcodec.UsageError):
        losses(trained, x, layers=3)


def test_a_dear_layer_collapses(pictures):
    held = data.load("mnist", pictures)
    share = []
    for beta in ((300.0, 1.0), (1.0, 300.0)):
        cell = Cell(preset="tiny", beta=beta, steps=100, batch=16)
        rates = metrics.rates(train(cell, held.train), held.test)["rates"]
        share.append(rates[0] / sum(rates))
    assert share[0] < 0.05 < 0.95 < share[1]


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
    # One step from there is not far.
    before = metrics.rates(models.load(good), held.test)["distortion"]
    assert results[0.2, 0.1, 1]["rates"][1]["distortion"] == pytest.approx(before, rel=0.05)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(hvcodec.UsageError):
        Cell(preset="none")
    with pytest.raises(hvcodec.UsageError):
        Cell(beta=(0.0, 1.0))
    with pytest.raises(hvcodec.UsageError):
        Cell(sent=(0.5, 0.6))
    with pytest.raises(hvcodec.UsageError):
        data.load("none", tmp_path)
    with pytest.raises(hvcodec.HvcError):
        data.load("mnist", tmp_path)
    with pytest.raises(hvcodec.UsageError):
        grid.run([], tmp_path, tmp_path, engine="none")
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
    with pytest.raises(hvcodec.UsageError):
        disk.Adapter(models.make("bottom-up", models.TINY), [])


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


def test_one_network_is_held_against_the_worst_of_its_settings():
    betas = [c.beta for c in grid.grid(Cell())]

    def told(beta, excess):
        result = ideal(beta)
        cell = {**result["cell"], "amortised": True}
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
