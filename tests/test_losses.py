"""Losses against closed forms and central differences; their reductions; and what they refuse."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.nn import functional

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4))
LABELS = np.array([0, 3, 1, 1, 2, 0])
PROBABILITIES = RNG.dirichlet(np.ones(4), 6)
BITS = (RNG.random((6, 4)) < 0.5).astype(float)


def log_softmax(z: Any) -> Any:
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def bce(z: Any) -> Any:
    return np.log(1 + np.exp(-z)) * BITS + np.log(1 + np.exp(z)) * (1 - BITS)


LOSSES: dict[str, tuple[Any, Any, Any]] = {  # loss, target, the value for each example or element by its definition
    "cross_entropy": (tg.softmax_cross_entropy, LABELS, lambda z: -log_softmax(z)[np.arange(6), LABELS]),
    "probabilities": (tg.softmax_cross_entropy, PROBABILITIES, lambda z: -(PROBABILITIES * log_softmax(z)).sum(axis=1)),
    "bce": (tg.binary_cross_entropy_with_logits, BITS, bce),
    "mse": (functional.mse_loss, PROBABILITIES, lambda z: (z - PROBABILITIES) ** 2),
}
REDUCTIONS: dict[str, Any] = {"mean": np.mean, "sum": np.sum, "none": lambda x: x}
each_loss = pytest.mark.parametrize(("loss", "target", "definition"), LOSSES.values(), ids=list(LOSSES))


class TestValues:
    @each_loss
    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_value_and_gradient(self, loss, target, definition, reduction):
        z = tg.Tensor(LOGITS, requires_grad=True)
        value = loss(z, target, reduction=reduction)
        reduce = REDUCTIONS[reduction]
        np.testing.assert_allclose(value.numpy(), reduce(definition(LOGITS)), rtol=1e-12)
        step, weights = RNG.normal(size=LOGITS.shape), RNG.normal(size=value.shape)
        value.backward(weights)
        ahead, behind = (reduce(definition(LOGITS + s * step)) for s in (1e-6, -1e-6))
        slope = np.sum((ahead - behind) * weights) / 2e-6
        assert np.sum(z.grad.numpy() * step) == pytest.approx(slope, rel=1e-6)

    @each_loss
    def test_arrays_lists_and_tensors_as_targets(self, loss, target, definition):
        expected = pytest.approx(definition(LOGITS).mean(), rel=1e-12)
        assert loss(LOGITS, target) == expected
        assert loss(LOGITS.tolist(), target.tolist()) == expected
        assert loss(tg.Tensor(LOGITS), tg.Tensor(target)).item() == expected
        assert loss(LOGITS, tg.Tensor(target)).item() == expected

    @each_loss
    def test_float32_stays(self, loss, target, definition):
        z = tg.Tensor(LOGITS, np.float32, requires_grad=True)
        target = target if target.dtype.kind == "i" else target.astype(np.float32)
        for reduction in REDUCTIONS:
            z.zero_grad()
            value = loss(z, target, reduction)
            value.sum().backward()
            assert (value.dtype, z.grad.dtype) == (np.float32, np.float32)

    @each_loss
    def test_float32_stays_with_targets_of_other_dtypes(self, loss, target, definition):
        for dtype in (np.uint8, np.int32, np.int64, np.bool_) if loss is tg.binary_cross_entropy_with_logits else ():
            assert loss(tg.Tensor(LOGITS, np.float32), target.astype(dtype)).dtype == np.float32
            assert loss(tg.Tensor(LOGITS, np.float32), tg.Tensor(target.astype(dtype))).dtype == np.float32

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64, ">i4"])
    def test_labels_of_any_integer_dtype(self, dtype):
        expected = tg.softmax_cross_entropy(LOGITS, LABELS)
        assert tg.softmax_cross_entropy(LOGITS, LABELS.astype(dtype)) == expected
        assert tg.softmax_cross_entropy(LOGITS[::2], LABELS.astype(dtype)[::2]) == tg.softmax_cross_entropy(
            LOGITS[::2], LABELS[::2]
        )

    def test_one_example_without_a_batch(self):
        z = tg.Tensor(LOGITS[0], requires_grad=True)
        loss = tg.softmax_cross_entropy(z, 2)
        loss.backward()
        assert loss.item() == pytest.approx(-log_softmax(LOGITS[0])[2])
        np.testing.assert_allclose(z.grad.numpy(), np.exp(log_softmax(LOGITS[0])) - [0, 0, 1, 0])

    def test_extremes_are_exact_and_silent(self):
        z = tg.Tensor([[1000.0, 0.0], [0.0, 1000.0]], requires_grad=True)
        loss = tg.softmax_cross_entropy(z, [1, 1], reduction="sum")
        loss.backward()
        assert (loss.item(), z.grad.tolist()) == (1000.0, [[1.0, -1.0], [0.0, 0.0]])
        x = tg.Tensor([1000.0, -1000.0, 1000.0], requires_grad=True)
        loss = tg.binary_cross_entropy_with_logits(x, [0.0, 1.0, 1.0], reduction="sum")
        loss.backward()
        assert (loss.item(), x.grad.tolist()) == (2000.0, [1.0, -1.0, 0.0])

    def test_cross_entropy_has_its_classes_on_axis_one(self):
        z, labels = RNG.normal(size=(2, 4, 3)), RNG.integers(0, 4, (2, 3))
        expected = tg.softmax_cross_entropy(z.transpose(0, 2, 1), labels, reduction="none")
        np.testing.assert_allclose(functional.cross_entropy(z, labels, reduction="none"), expected)
        onehot = np.eye(4)[labels].transpose(0, 2, 1)
        np.testing.assert_allclose(functional.cross_entropy(z, onehot, reduction="none"), expected)
        assert functional.cross_entropy(LOGITS, LABELS) == tg.softmax_cross_entropy(LOGITS, LABELS)

    def test_gradient_with_respect_to_probabilities(self):
        t = tg.Tensor(PROBABILITIES, requires_grad=True)
        tg.softmax_cross_entropy(LOGITS, t, reduction="sum").backward()
        np.testing.assert_allclose(t.grad.numpy(), -log_softmax(LOGITS))

    @given(st.integers(1, 5), st.integers(1, 5), st.floats(-50, 50))
    def test_cross_entropy_properties(self, n, classes, shift):
        rng = np.random.default_rng(n * 10 + classes)
        z, labels = rng.normal(scale=3, size=(n, classes)), rng.integers(0, classes, n)
        x = tg.Tensor(z, requires_grad=True)
        loss = tg.softmax_cross_entropy(x, labels)
        loss.backward()
        assert loss.item() >= 0
        assert tg.softmax_cross_entropy(z + shift, labels) == pytest.approx(loss.item(), abs=1e-12)
        assert tg.softmax_cross_entropy(z, np.eye(classes)[labels]) == pytest.approx(loss.item(), abs=1e-12)
        np.testing.assert_allclose(x.grad.numpy().sum(axis=1), 0, atol=1e-12)  # softmax ignores a common shift

    def test_modules(self):
        assert nn.CrossEntropyLoss()(LOGITS, LABELS) == tg.softmax_cross_entropy(LOGITS, LABELS)
        assert nn.BCEWithLogitsLoss("sum")(LOGITS, BITS) == tg.binary_cross_entropy_with_logits(LOGITS, BITS, "sum")
        assert nn.MSELoss(reduction="none")(LOGITS, BITS).shape == (6, 4)
        assert repr(nn.MSELoss()) == "MSELoss(reduction='mean')"


class TestRefusals:
    @each_loss
    @pytest.mark.parametrize("reduction", ["avg", None, ["mean"]])
    def test_unknown_reduction(self, loss, target, definition, reduction):
        with pytest.raises(ValueError, match=r"is not a valid value for reduction; use mean, sum or none"):
            loss(LOGITS, target, reduction=reduction)

    def test_unknown_reduction_is_named_when_a_module_is_made(self):
        for module in (nn.MSELoss, nn.BCEWithLogitsLoss, nn.CrossEntropyLoss):
            with pytest.raises(ValueError, match=r"^avg is not a valid value for reduction; use mean, sum or none$"):
                module("avg")

    @pytest.mark.parametrize("loss", [functional.mse_loss, tg.binary_cross_entropy_with_logits])
    @pytest.mark.parametrize(
        ("shape", "target", "fix"),
        [
            ((5, 1), (5,), r"target\.reshape\(input\.shape\)"),
            ((5,), (5, 1), r"target\.reshape\(input\.shape\)"),
            ((5, 3), (3,), r"np\.broadcast_to\(target, input\.shape\)"),
            ((5, 3), (5, 1), r"np\.broadcast_to\(target, input\.shape\)"),
            ((3,), (5, 3), r"same batch"),
            ((5,), (), r"np\.broadcast_to\(target, input\.shape\)"),
        ],
    )
    def test_shapes_that_differ(self, loss, shape, target, fix):
        shapes = rf"input has shape {re.escape(str(shape))}, but target has shape {re.escape(str(target))}"
        with pytest.raises(ValueError, match=f"{shapes}; they must be equal: .*{fix}"):
            loss(tg.Tensor(np.zeros(shape), requires_grad=True), np.zeros(target))

    @pytest.mark.parametrize("label", [4, -1, 100])
    def test_labels_out_of_range(self, label):
        with pytest.raises(IndexError, match=rf"label {label} is out of bounds.*0 to 3"):
            tg.softmax_cross_entropy(tg.Tensor(LOGITS, requires_grad=True), np.array([0, 1, 2, 3, label, 0]))

    @pytest.mark.parametrize(
        ("labels", "kind", "message"),
        [
            (LABELS.astype(float), TypeError, r"float64\(6,\) are class indices but not integers.*astype\(np\.int64\)"),
            (LABELS > 1, TypeError, r"labels bool\(6,\) are neither class indices \(integers\) nor probabilities"),
            (np.array(list("abcdef")), TypeError, "are neither class indices"),
            (np.eye(4, dtype=int)[LABELS], TypeError, r"look one-hot.*labels\.astype\(logits\.dtype\)"),
            (LABELS[:, None], ValueError, r"must have shape \(6,\); use labels\[\.\.\., 0\]"),
            (LABELS[:5], ValueError, r"class indices of shape \(6,\), one for each example.*the same batch\?"),
            (PROBABILITIES[:, :3], ValueError, r"or probabilities of shape \(6, 4\)"),
        ],
    )
    def test_labels_that_do_not_fit(self, labels, kind, message):
        for logits in (LOGITS, tg.Tensor(LOGITS, requires_grad=True)):
            with pytest.raises(kind, match=message):
                tg.softmax_cross_entropy(logits, labels)
            with pytest.raises(kind, match=message):
                functional.cross_entropy(logits, labels)

    def test_logits_without_classes(self):
        with pytest.raises(ValueError, match="logits must have an axis of classes"):
            tg.softmax_cross_entropy(np.float64(1.0), 0)

    def test_a_loss_in_a_model_says_where(self):
        class Trained(nn.Module):
            def __init__(self) -> None:
                self.loss = nn.MSELoss()

            def forward(self, x: Any, y: Any) -> Any:
                return self.loss(x, y)

        with pytest.raises(ValueError, match="mse_loss") as caught:
            Trained()(np.zeros((2, 1)), np.zeros(2))
        assert caught.value.__notes__ == ["in layer loss: MSELoss(reduction='mean')"]
