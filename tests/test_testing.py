"""The checks that are shipped say what is wrong, and where."""

import numpy as np
import pytest
from hypothesis import find, given, settings

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor, testing
from tinygrad_scratch.domains import positive
from tinygrad_scratch.testing import arrays, check_grad, check_op, indices, op_inputs, samples, subscripts, tensors

A = np.linspace(0.2, 1.7, 6).reshape(2, 3)


def off_at(index):
    """The sine of x, whose gradient ignores one element."""

    def f(x, weight=None):
        return np.sin(x.at[index].set(x.detach()[index]))

    return f


def test_what_is_right_passes():
    check_grad(np.sin, A)
    check_grad(lambda a, b: np.sum(a @ b), A, A.T, order=3)
    check_grad(lambda x, labels: tg.softmax_cross_entropy(x, labels), A, np.array([0, 2]))
    check_grad(lambda x: x * np.zeros((0, 1, 1)), A)
    check_grad(lambda x: 3.0 * x, 2.0)
    check_grad(np.sin, Tensor(A), rng=np.random.default_rng(1))


def test_the_argument_and_its_element_are_named():
    with pytest.raises(AssertionError) as caught:
        check_grad(lambda left, right: left + off_at((1, 2))(right), A, A)
    message = str(caught.value)
    assert message.startswith(
        "gradient of argument 1 ('right'), float64(2, 3): 1 of 6 elements are wrong, worst at (1, 2): "
    )
    assert "0, by differences" in message


def test_the_order_that_fails_is_named(monkeypatch):
    monkeypatch.setattr(tg.OPS["exp"], "rules", (lambda g, y, x: g * getattr(y, "_data", y),))
    check_grad(np.exp, A)
    with pytest.raises(AssertionError, match=r"^gradient of gradient of argument 0"):
        check_grad(np.exp, A, order=2)


def test_what_is_not_finite_is_no_pass():
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match="is not finite"):
        check_grad(np.log, np.array([0.0, 1.0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_narrow_floats_are_refused(dtype):
    with pytest.raises(TypeError, match=r"argument 1 is float\d\d\(2, 3\), .* pass x\.astype\(np\.float64\)"):
        check_grad(lambda a, b: a * b, A, A.astype(dtype))


def test_a_function_that_loses_the_graph_is_refused():
    with pytest.raises(TypeError, match="its graph is lost"):
        check_grad(lambda x: np.sum(x.numpy()), A)


def test_large_arguments_are_looked_at_in_part():
    with pytest.raises(AssertionError, match="of 512 elements are wrong"):
        check_grad(off_at(slice(0, 900)), np.linspace(0, 1, 1000))


def test_the_operation_that_is_wrong_is_named(monkeypatch):
    monkeypatch.setattr(tg.OPS["arctan"], "rules", (lambda g, y, x: g / (1 + x),))
    with pytest.raises(AssertionError, match=r"; the rule of argument 0 of arctan\(float64\(2, 3\)\) is wrong$"):
        check_grad(lambda x: np.exp(np.sin(np.arctan(x * 2.0)) @ x.T), A)
    monkeypatch.setattr(tg.OPS["matmul"], "rules", (tg.OPS["matmul"].rules[0], lambda g, y, a, b: -a.mT @ g))
    with pytest.raises(AssertionError, match=r"argument 1 of matmul\(float64\(2, 3\), float64\(3, 2\)\) is wrong$"):
        check_grad(lambda x: np.exp(np.sin(x) @ (x.T * 2)), A)


def test_the_complex_step_has_no_rounding():
    check_grad(lambda x: np.exp(np.sin(x)) / x, A, method="complex", rtol=1e-14, atol=1e-14)
    with pytest.raises(AssertionError, match=r"worst at \(1, 2\)"):
        check_grad(
            lambda x: x * (1 + 1e-9 * (x == A[1, 2])) if isinstance(x, Tensor) else x,
            A,
            method="complex",
            rtol=1e-12,
            atol=0,
        )
    with pytest.raises(TypeError) as caught:
        check_grad(lambda x: np.logaddexp(x, 0), A, method="complex")
    assert "write it in NumPy functions" in caught.value.__notes__[0]
    for wrong in ({"method": "guess"}, {"method": "complex", "order": 2}):
        with pytest.raises(ValueError, match="method is 'differences', or 'complex' for order 1"):
            check_grad(np.sin, A, **wrong)


def test_kinks_are_recognised():
    at_kink, near = np.array([-1.0, 0.0, 2.0]), np.array([-1.0, 5e-5, 2.0])
    with pytest.raises(
        AssertionError,
        match=r"worst at \(1,\), a kink: the slopes from its sides are (?!.*rule of)",
    ):
        check_grad(tg.relu, at_kink)
    check_grad(tg.relu, at_kink, kinks=True)
    check_grad(np.abs, at_kink)  # the slope between its sides, as central differences have it
    check_grad(np.abs, near)  # within a step of the kink: shorter ones decide
    check_grad(lambda x: np.maximum(x, 0) + np.max(x[:2]), np.array([0.0, 0.0, 1.0]), kinks=True)
    steep = tg.elementwise(np.abs, lambda g, y, x: g * (np.sign(x) + 3 * (x == 0)), name="steep", answers=())
    try:
        with pytest.raises(AssertionError, match="a kink"):
            check_grad(steep, at_kink, kinks=True)
        wrong = tg.elementwise(np.abs, lambda g, y, x: g * 0.9 * np.sign(x), name="shallow", answers=())
        with pytest.raises(AssertionError, match="elements are wrong"):
            check_grad(wrong, near)
    finally:
        del tg.OPS["steep"], tg.OPS["shallow"]


@given(indices((3, 4)))
def test_what_indices_draws_is_differentiable(index):
    x = np.linspace(-1, 1, 12).reshape(3, 4)
    check_grad(lambda x: np.sin(x)[index], x)
    check_grad(lambda x: (x * 1.0).at[index].add(2.0), x)


def test_indices_draws_every_kind():
    strategy = indices((3, 4))
    kinds = (
        lambda i: isinstance(i, np.ndarray) and i.dtype == bool,
        lambda i: isinstance(i, tuple) and any(isinstance(part, slice) for part in i),
        lambda i: isinstance(i, tuple) and None in [part for part in i if not isinstance(part, np.ndarray)],
        lambda i: isinstance(i, tuple) and any(isinstance(p, np.ndarray) and p.size > len({*p.flat}) for p in i),
    )
    for kind in kinds:
        assert find(strategy, kind, settings=settings(max_examples=2000)) is not None


@given(subscripts())
def test_einsum_of_drawn_subscripts(drawn):
    text, operands = drawn
    check_grad(lambda *xs: np.einsum(text, *xs), *operands, order=2)
    np.testing.assert_allclose(np.einsum(text, *map(Tensor, operands)), np.einsum(text, *operands), atol=1e-12)


def test_subscripts_draws_every_form():
    for form in (
        lambda d: "..." in d[0],
        lambda d: "->" not in d[0],
        lambda d: "ii" in d[0],
        lambda d: d[0].count(",") == 2,
    ):
        assert find(subscripts(), form)


def test_samples_cover_every_case():
    for op in tg.OPS.values():
        drawn = list(samples(op))
        assert len(drawn) == (len(op.domain.cases) or 4)
        for (inputs, options), (shapes, expected) in zip(drawn, op.domain.cases, strict=False):
            assert tuple(x.shape for x in inputs) == shapes
            assert options == expected


def test_check_op_names_the_property(monkeypatch):
    op = tg.OPS["tanh"]
    monkeypatch.setattr(op, "rules", (lambda g, y, x: g * (1 - y),))
    with pytest.raises(AssertionError) as caught:
        check_op(op)
    assert "property 'gradient' of <op tanh: elementwise, 1 argument> with float64" in caught.value.__notes__[0]


def test_strategies_draw_scalars_and_empty_arrays():
    assert find(arrays(2), lambda pair: pair[0].shape == () != pair[1].shape)
    assert find(arrays(2), lambda pair: 0 in pair[0].shape)
    assert find(op_inputs(tg.OPS["where"]), lambda drawn: drawn[0][0].dtype == bool and drawn[0][0].size > 1)
    assert find(op_inputs(tg.OPS["sum"]), lambda drawn: drawn[1].get("axis") == (0, -1))


@settings(max_examples=10)
@given(tensors(3, domain=positive, dtype=np.float32, max_dims=2))
def test_tensors_broadcast_and_require_gradients(group):
    total = group[0] * group[1] + np.log(group[2])
    assert total.shape == np.broadcast_shapes(*(t.shape for t in group))
    assert total.requires_grad
    assert {t.dtype for t in group} == {np.dtype(np.float32)}


def test_names_that_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'check_gradient'"):
        testing.check_gradient  # noqa: B018
