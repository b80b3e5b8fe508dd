"""Random expression DAGs over the whole table: derivatives of both modes and orders, and captured, agree with differences."""

import numpy as np
from hypothesis import given, settings
from random_graphs import CASES, ROWS, evaluate, graphs, starts

import tinygrad_scratch as tg
from tinygrad_scratch.testing import check_grad

MANY = settings(max_examples=4 * settings().max_examples)
PLACES = (0, 1, 2)


def directions():
    return starts(seed=1)


@MANY
@given(graphs())
def test_first_and_second_order_are_those_of_differences(graph):
    check_grad(lambda *xs: evaluate(graph, *xs), *starts(), order=2, rtol=1e-5)


@MANY
@given(graphs(lines=12))
def test_forward_mode_is_the_transpose_of_reverse_mode(graph):
    f = lambda *xs: evaluate(graph, *xs)  # noqa: E731
    value, tangent = tg.jvp(f, starts(), directions())
    same, pull_back = tg.vjp(f, *starts())
    assert value == same
    expected = sum(np.vdot(g, t) for g, t in zip(pull_back(1.0), directions(), strict=True))
    np.testing.assert_allclose(tangent, expected, rtol=1e-9, atol=1e-10)


@given(graphs())
def test_forward_over_reverse_is_reverse_over_reverse(graph):
    f = lambda *xs: evaluate(graph, *xs)  # noqa: E731
    slopes = tg.grad(f, PLACES)

    def along(*xs):
        return sum(np.sum(g * t) for g, t in zip(slopes(*xs), directions(), strict=True))

    forward, back = tg.hvp(f, starts(), directions()), tg.grad(along, PLACES)(*starts())
    whole = tg.hessian(f, PLACES)(*starts())
    for i, (a, b) in enumerate(zip(forward, back, strict=True)):
        scale = 1e-9 * max(1.0, np.max(np.abs(b)))
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=scale)
        rows = sum(np.tensordot(whole[i][k], t, t.ndim) for k, t in enumerate(directions()))
        np.testing.assert_allclose(rows, b, rtol=1e-8, atol=scale)


@given(graphs())
def test_captured_gradients_are_eager_ones(graph):
    def step(*xs):
        variables = [x.detach().requires_grad_() for x in map(tg.as_tensor, xs)]
        value = evaluate(graph, *variables)
        return value.detach(), *tg.gradients(value, variables)

    captured = tg.capture(step, backend="numpy")
    for seed in range(4):
        for a, b in zip(captured(*starts(seed)), step(*starts(seed)), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-11)


def test_every_row_that_has_a_derivative_is_drawn():
    missing = set(CASES) - set(ROWS)
    assert not missing, f"no case of {sorted(missing)} is fit for a graph"
