"""Losses with weights, smoothing and labels to ignore; nll, BCE, L1, Huber, divergence: definitions in NumPy, captured, torch."""

from typing import Any

import numpy as np
import pytest
from capturing import assert_same, compiled_steps, needs_numba, tolerance_for  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.nn import functional

RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(6, 4)), np.array([0, 3, 1, 1, 2, 0])
PROBABILITIES = RNG.dirichlet(np.ones(4), 6)
IMAGES, IMAGE_LABELS = RNG.normal(size=(2, 4, 3, 5)), RNG.integers(0, 4, (2, 3, 5))
CLASS_WEIGHTS = np.array([0.5, 2.0, 1.0, 0.1])
CLOSE = {"rtol": 1e-10, "atol": 1e-11}


def log_softmax(z: Any) -> Any:
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


class TestCrossEntropy:
    @given(st.floats(0, 1), st.booleans(), st.sampled_from([-100, 1, 9]), st.sampled_from(["mean", "sum", "none"]))
    def test_labels(self, smoothing, weighted, ignore, reduction):
        labels = LABELS.copy()
        labels[[1, 4]] = ignore
        w = CLASS_WEIGHTS if weighted else np.ones(4)
        each, total = [], 0.0
        for z, label in zip(log_softmax(LOGITS), labels, strict=True):
            counts = label != ignore
            target = np.full(4, smoothing / 4)
            target[label * counts] += 1 - smoothing
            smooth = -(w * z).sum() * smoothing / 4
            each.append(counts * (-(1 - smoothing) * w[label * counts] * z[label * counts] + smooth))
            total += counts * w[label * counts]
        expected = {"none": each, "sum": np.sum(each), "mean": np.sum(each) / total}[reduction]
        weight = CLASS_WEIGHTS if weighted else None
        found = functional.cross_entropy(
            LOGITS, labels, reduction, weight=weight, ignore_index=ignore, label_smoothing=smoothing
        )
        np.testing.assert_allclose(found, expected, **CLOSE)

    @given(st.floats(0, 1), st.booleans())
    def test_probabilities(self, smoothing, weighted):
        w = CLASS_WEIGHTS if weighted else np.ones(4)
        target = PROBABILITIES * (1 - smoothing) + smoothing / 4
        expected = -(w * target * log_softmax(LOGITS)).sum(-1).mean()
        weight = CLASS_WEIGHTS if weighted else None
        found = functional.cross_entropy(LOGITS, PROBABILITIES, weight=weight, label_smoothing=smoothing)
        np.testing.assert_allclose(found, expected, **CLOSE)

    def test_ignored_examples_have_no_gradient(self):
        x = tg.Tensor(LOGITS, requires_grad=True)
        labels = np.where(LABELS == 1, -100, LABELS)
        functional.cross_entropy(x, labels).backward()
        assert (x.grad.numpy()[LABELS == 1] == 0).all()
        assert (x.grad.numpy()[LABELS != 1] != 0).any(axis=1).all()
        assert np.isnan(functional.cross_entropy(LOGITS, np.full(6, -100)))

    def test_other_labels_out_of_range_are_refused(self):
        for labels, ignore in (([0, 4], -100), ([-100, -1], -100), ([-100, 0], 3)):
            with pytest.raises(IndexError, match="is out of bounds: there are 4 classes"):
                functional.cross_entropy(LOGITS[:2], np.array(labels), ignore_index=ignore)

    def test_options(self):
        with pytest.raises(ValueError, match=r"label_smoothing is 1\.5: it must be in \[0, 1\]"):
            functional.cross_entropy(LOGITS, LABELS, label_smoothing=1.5)
        for loss in (functional.cross_entropy, functional.nll_loss):
            with pytest.raises(
                ValueError, match=r"weight is float64\(3,\): it must have one element for each of 4 classes"
            ):
                loss(LOGITS, LABELS, weight=np.ones(3))


class TestOthers:
    def test_nll_is_cross_entropy_of_logarithms(self):
        for options in ({}, {"weight": CLASS_WEIGHTS}, {"ignore_index": 1}, {"reduction": "none"}):
            found = functional.nll_loss(log_softmax(LOGITS), LABELS, **options)
            np.testing.assert_allclose(found, functional.cross_entropy(LOGITS, LABELS, **options), **CLOSE)
        with pytest.raises(ValueError, match=r"nll_loss of logits float64\(6, 4\)"):
            functional.nll_loss(LOGITS, LABELS[:3])
        with pytest.raises(IndexError, match="label 7 is out of bounds"):
            functional.nll_loss(LOGITS, LABELS + 7 * (LABELS == 3) - 3 * (LABELS == 3))

    def test_binary_cross_entropy(self):
        x, t = PROBABILITIES, RNG.random((6, 4))
        expected = -(t * np.log(x) + (1 - t) * np.log(1 - x))
        np.testing.assert_allclose(functional.binary_cross_entropy(x, t, "none"), expected)
        weight = RNG.random((6, 1))
        np.testing.assert_allclose(functional.binary_cross_entropy(x, t, weight=weight), (expected * weight).mean())
        z = np.log(x / (1 - x))
        np.testing.assert_allclose(functional.binary_cross_entropy_with_logits(z, t, "none"), expected)

    def test_binary_cross_entropy_at_the_ends(self):
        x = tg.Tensor([0.0, 0.0, 1.0, 1.0], requires_grad=True)
        losses = functional.binary_cross_entropy(x, np.array([0, 1, 0, 1]), "none")
        losses.sum().backward()
        assert losses.tolist() == [0, 100, 100, 0]
        assert x.grad.tolist() == [0, -1e12, 1e12, 0]
        with pytest.raises(ValueError, match=r"values that are not in .* use binary_cross_entropy_with_logits"):
            functional.binary_cross_entropy(np.array([-0.5, 2.0]), np.zeros(2))
        with pytest.raises(ValueError, match="not in"):
            functional.binary_cross_entropy(np.array([np.nan]), np.zeros(1))

    def test_weight_of_the_positive(self):
        t, more = (PROBABILITIES > 0.3).astype(np.float64), np.array([1.0, 3.0, 0.5, 2.0])
        sigmoid = 1 / (1 + np.exp(-LOGITS))
        expected = -(more * t * np.log(sigmoid) + (1 - t) * np.log(1 - sigmoid))
        found = functional.binary_cross_entropy_with_logits(LOGITS, t, "none", pos_weight=more)
        np.testing.assert_allclose(found, expected)
        big = functional.binary_cross_entropy_with_logits(
            np.array([-1000.0, 1000.0]), np.array([1, 0]), "none", pos_weight=2.0
        )
        assert big.tolist() == [2000, 1000]
        with pytest.raises(ValueError, match=r"pos_weight of shape \(3,\) does not broadcast to input \(6, 4\)"):
            functional.binary_cross_entropy_with_logits(LOGITS, t, pos_weight=np.ones(3))
        with pytest.raises(ValueError, match=r"weight of shape \(1, 6, 4\) does not broadcast"):
            functional.binary_cross_entropy_with_logits(LOGITS, t, weight=np.ones((1, 6, 4)))

    @given(st.floats(-4, 4), st.floats(0.1, 3))
    def test_distances(self, difference, delta):
        a, b, d = np.array([difference + 0.5]), np.array([0.5]), abs(difference)
        huber = d * d / 2 if d <= delta else delta * (d - delta / 2)
        assert functional.l1_loss(a, b) == pytest.approx(d, abs=1e-12)
        assert functional.huber_loss(a, b, delta=delta) == pytest.approx(huber, abs=1e-12)
        assert functional.smooth_l1_loss(a, b, beta=delta) == pytest.approx(huber / delta, abs=1e-12)
        assert functional.smooth_l1_loss(a, b, beta=0) == pytest.approx(d, abs=1e-12)

    def test_distances_at_their_kinks(self):
        x = tg.Tensor([0.0, 1.0, -1.0], requires_grad=True)
        for loss, slopes in ((functional.l1_loss, [0, 1, -1]), (functional.huber_loss, [0, 1, -1])):
            x.zero_grad()
            loss(x, np.zeros(3), "sum").backward()
            assert x.grad.tolist() == slopes
        for bad in (lambda: functional.huber_loss(x, x, delta=0), lambda: functional.smooth_l1_loss(x, x, beta=-1)):
            with pytest.raises(ValueError, match="it must be"):
                bad()

    def test_divergence(self):
        logs, target = log_softmax(LOGITS), PROBABILITIES.copy()
        target[0] = [0, 1, 0, 0]
        terms = np.where(target > 0, target * (np.log(np.maximum(target, 1e-300)) - logs), 0)
        np.testing.assert_allclose(functional.kl_div(logs, target, "none"), terms)
        assert functional.kl_div(logs, target, "batchmean") == pytest.approx(terms.sum() / 6)
        np.testing.assert_allclose(
            functional.kl_div(logs, logs + 0.5, "none", log_target=True), np.exp(logs + 0.5) * 0.5
        )
        with pytest.raises(ValueError, match="avg is not a valid value for reduction"):
            functional.kl_div(logs, target, "avg")

    @pytest.mark.parametrize("name", ["l1_loss", "huber_loss", "smooth_l1_loss", "kl_div", "binary_cross_entropy"])
    def test_shapes_and_reductions(self, name):
        loss = getattr(functional, name)
        with pytest.raises(ValueError, match=rf"{name}: input has shape \(5, 1\), but target has shape \(5,\)"):
            loss(np.ones((5, 1)), np.ones(5))
        with pytest.raises(ValueError, match="is not a valid value for reduction"):
            loss(np.ones(5), np.ones(5), "average")


CASES: dict[str, tuple[str, str, Any, Any, dict[str, Any]]] = {
    "smoothing": ("cross_entropy", "CrossEntropyLoss", LOGITS, LABELS, {"label_smoothing": 0.3}),
    "weights": ("cross_entropy", "CrossEntropyLoss", LOGITS, LABELS, {"weight": CLASS_WEIGHTS}),
    "both": ("cross_entropy", "CrossEntropyLoss", LOGITS, LABELS, {"weight": CLASS_WEIGHTS, "label_smoothing": 0.3}),
    "ignored": ("cross_entropy", "CrossEntropyLoss", LOGITS, np.where(LABELS == 1, -100, LABELS), {}),
    "ignored, of images": (
        "cross_entropy", "CrossEntropyLoss", IMAGES, IMAGE_LABELS,
        {"ignore_index": 2, "weight": CLASS_WEIGHTS, "label_smoothing": 0.1},
    ),
    "probabilities": (
        "cross_entropy", "CrossEntropyLoss", LOGITS, PROBABILITIES, {"weight": CLASS_WEIGHTS, "label_smoothing": 0.3}
    ),
    "nll": ("nll_loss", "NLLLoss", log_softmax(LOGITS), LABELS, {"weight": CLASS_WEIGHTS}),
    "nll of images": ("nll_loss", "NLLLoss", IMAGES, IMAGE_LABELS, {"ignore_index": 2}),
    "bce": ("binary_cross_entropy", "BCELoss", PROBABILITIES, RNG.random((6, 4)), {"weight": CLASS_WEIGHTS}),
    "bce at the ends": (
        "binary_cross_entropy", "BCELoss", np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]), {}
    ),
    "bce with logits": (
        "binary_cross_entropy_with_logits", "BCEWithLogitsLoss", LOGITS, PROBABILITIES,
        {"weight": RNG.random((6, 1)), "pos_weight": CLASS_WEIGHTS},
    ),
    "l1": ("l1_loss", "L1Loss", LOGITS, PROBABILITIES, {}),
    "huber": ("huber_loss", "HuberLoss", LOGITS, PROBABILITIES, {"delta": 0.6}),
    "smooth l1": ("smooth_l1_loss", "SmoothL1Loss", LOGITS, PROBABILITIES, {"beta": 0.6}),
    "smooth l1, 0": ("smooth_l1_loss", "SmoothL1Loss", LOGITS, PROBABILITIES, {"beta": 0.0}),
    "kl": ("kl_div", "KLDivLoss", log_softmax(LOGITS), PROBABILITIES, {}),
    "kl of logarithms": ("kl_div", "KLDivLoss", log_softmax(LOGITS), np.log(PROBABILITIES), {"log_target": True}),
}  # fmt: skip
each = pytest.mark.parametrize(("name", "module", "input", "target", "options"), CASES.values(), ids=list(CASES))


@each
def test_modules_are_the_functions_and_keep_float32(name, module, input, target, options):
    x = tg.Tensor(input, np.float32, requires_grad=True)
    target = target.astype(np.float32) if target.dtype.kind == "f" else target
    layer = getattr(nn, module)(**options)
    losses = layer(x, target), getattr(functional, name)(x, target, **options)
    assert_same([losses[0].numpy()], [losses[1].numpy()])
    losses[0].backward()
    assert losses[0].dtype == x.grad.dtype == np.float32
    assert sorted(layer.state_dict()) == sorted(key for key in options if "weight" in key)
    assert repr(layer) == f"{module}(reduction='mean')"


COMPILED = ("ignored, of images", "nll", "bce with logits", "bce", "huber", "kl")


RUNS = [*((case, "numpy") for case in CASES), *(pytest.param(case, "numba", marks=needs_numba) for case in COMPILED)]


@pytest.mark.parametrize(("case", "backend"), RUNS)
def test_captured_is_eager(case, backend):
    name, _, input, target, options = CASES[case]

    def step(x, t):
        x = tg.Tensor(x, requires_grad=True) if not isinstance(x, tg.Tensor) else x
        p.zero_grad()
        loss = getattr(functional, name)(x * p, t, **options)
        loss.backward()
        return loss, p.grad * 1

    p = nn.Parameter(np.ones(()), np.float64)
    expected = [np.array(t._data) for t in step(input, target)]
    captured = tg.capture(step, backend=backend, rewrites=False)
    for _ in range(4):
        found = [t.numpy() for t in captured(input, target)]
        assert_same(found, expected, tolerance_for(backend, False, np.float64))
    assert captured.plan.calls == 2
    assert not captured.plan.fallback


@each
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.filterwarnings("ignore:reduction. 'mean'")  # torch's advice on kl_div
def test_torch(name, module, input, target, options, reduction, torch, request):
    x, t = tg.Tensor(input, requires_grad=True), torch.tensor(input, requires_grad=True)
    its = {key: torch.tensor(value) if isinstance(value, np.ndarray) else value for key, value in options.items()}
    ours = getattr(functional, name)(x, target, reduction, **options)
    theirs = getattr(torch.nn, module)(reduction=reduction, **its)(t, torch.tensor(target))
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), **CLOSE)
    g = RNG.normal(size=ours.shape)
    ours.backward(g)
    theirs.backward(torch.tensor(g))
    within = {"rtol": 1e-8} if "ends" in request.node.callspec.id else CLOSE  # torch's 1e-12 is a float32
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), **within)
