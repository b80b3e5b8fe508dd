"""The hand-derived networks are right, and the library derives the same gradients."""

from dataclasses import replace

import numpy as np
import pytest

import tinygrad_scratch as tg
from benchmarks.hand_derived import (
    NETWORKS,
    Network,
    Plain,
    Preallocated,
    ProductsAlone,
    forward,
    gradients,
    initial_parameters,
    loss_and_delta,
    pairs,
    random_batch,
    random_batches,
)


def small(network: Network) -> Network:
    """The same network on a batch that tests can afford."""
    return replace(network, batch=min(network.batch, 60))


def loss_of(network, parameters, x, targets) -> float:
    return float(loss_and_delta(network, forward(network, parameters, x)[1], targets)[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_central_differences(name):
    network = small(NETWORKS[name])
    rng = np.random.default_rng(0)
    parameters = initial_parameters(network, rng, np.float64)
    x, targets = random_batch(network, rng, np.float64)
    _, grads = gradients(network, parameters, x, targets)
    step = 1e-6
    for index, gradient in enumerate(grads):
        assert gradient.shape == parameters[index].shape
        direction = rng.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)
        ahead, behind = list(parameters), list(parameters)
        ahead[index] = parameters[index] + step * direction
        behind[index] = parameters[index] - step * direction
        difference = (loss_of(network, ahead, x, targets) - loss_of(network, behind, x, targets)) / (2 * step)
        assert np.vdot(gradient, direction) == pytest.approx(difference, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_are_those_of_the_papers(name):
    """The stable forms equal the textbook formulas."""
    network = small(NETWORKS[name])
    rng = np.random.default_rng(1)
    parameters = initial_parameters(network, rng, np.float64)
    x, targets = random_batch(network, rng, np.float64)
    z = forward(network, parameters, x)[1]
    if network.loss == "softmax_cross_entropy":
        probabilities = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        expected = -np.log(probabilities[np.arange(len(z)), targets]).mean()
    else:
        y = 1 / (1 + np.exp(-z))
        each = (y - targets) ** 2 / 2
        if network.loss == "binary_cross_entropy":
            each = -targets * np.log(y) - (1 - targets) * np.log(1 - y)
        expected = each.sum(axis=1).mean()
    assert loss_of(network, parameters, x, targets) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_preallocated_is_plain(name):
    network = small(NETWORKS[name])
    rng = np.random.default_rng(2)
    parameters = initial_parameters(network, rng)
    plain, preallocated = Plain(network, parameters), Preallocated(network, parameters)
    for x, targets in random_batches(network, 5, rng):
        assert preallocated(x, targets) == pytest.approx(plain(x, targets), rel=1e-5)
    for before, one, other in zip(parameters, plain.parameters, preallocated.parameters, strict=True):
        assert one.dtype == other.dtype == np.float32
        assert not np.array_equal(before, one)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_extreme_logits_stay_finite_and_silent():
    z = np.array([[1000.0, -1000.0, 0.0]], np.float32)
    for loss, targets in (
        ("squared_error", np.float32([[1, 0, 1]])),
        ("binary_cross_entropy", np.float32([[1, 0, 1]])),
        ("softmax_cross_entropy", np.array([1])),
    ):
        network = Network("extreme", (2, 3), "sigmoid", loss, batch=1, lr=0.1)
        value, delta = loss_and_delta(network, z, targets)
        assert np.isfinite(value)
        assert np.isfinite(delta).all()


def test_products_alone_leave_the_parameters():
    network = NETWORKS["kth-batch"]
    rng = np.random.default_rng(3)
    parameters = initial_parameters(network, rng)
    copies = [parameter.copy() for parameter in parameters]
    ProductsAlone(network, parameters)(*random_batch(network, rng))
    for before, after in zip(copies, parameters, strict=True):
        np.testing.assert_array_equal(before, after)


def test_labels_name_the_eight_steps():
    assert NETWORKS["jhu"].label == "784-300-100-10 batch 1"
    assert NETWORKS["kth-online"].label == "784-32-10 batch 1, momentum"
    assert NETWORKS["lab2-softmax"].label == "784-64-10 batch 40,000"


def expression(network, tensors, x, targets):
    """The network's loss as a tensor expression."""
    for weight, bias in pairs(tensors[:-2]):
        z = x @ weight + bias
        x = tg.sigmoid(z) if network.hidden == "sigmoid" else tg.relu(z)
    z = x @ tensors[-2] + tensors[-1]
    if network.loss == "softmax_cross_entropy":
        return tg.softmax_cross_entropy(z, targets)
    if network.loss == "binary_cross_entropy":
        return tg.binary_cross_entropy_with_logits(z, targets, reduction="sum") / len(targets)
    return 0.5 * np.sum((tg.sigmoid(z) - targets) ** 2) / len(targets)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 1e-4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_library_derives_the_hand_derived_gradients(name, dtype, tolerance):
    network = small(NETWORKS[name])
    rng = np.random.default_rng(4)
    parameters = initial_parameters(network, rng, dtype)
    x, targets = random_batch(network, rng, dtype)
    expected_loss, expected = gradients(network, parameters, x, targets)
    tensors = [tg.Tensor(parameter, requires_grad=True) for parameter in parameters]
    loss = expression(network, tensors, x, targets)
    loss.backward()
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(float(expected_loss), rel=tolerance)
    for tensor, gradient in zip(tensors, expected, strict=True):
        assert tensor.grad.dtype == dtype
        assert tensor.grad.shape == gradient.shape
        error = np.linalg.norm(tensor.grad.numpy() - gradient) / np.linalg.norm(gradient)
        assert error <= tolerance
