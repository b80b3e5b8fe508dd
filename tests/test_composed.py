"""NumPy functions that are compositions of rows: NumPy is the oracle of values, differences that of gradients."""
# ruff: noqa: E501  (one line a function, however wide)

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor
from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.ops import composed
from tinygrad_scratch.registry import ANSWERS
from tinygrad_scratch.testing import check_grad

RNG = np.random.default_rng(0)
V, M, B = RNG.standard_normal(4), RNG.standard_normal((3, 4)), RNG.standard_normal((2, 3, 4))
S = np.array(0.7)
ONES = np.ones((3, 4))

FORMS = {
    "reshape": [(lambda x: np.reshape(x, (4, 3)), (M,)), (lambda x: np.reshape(x, -1), (M,)), (lambda x: np.reshape(x, shape=(2, 6)), (M,)), (lambda x: np.reshape(x, (1, 1)), (S,))],
    "ravel": [(np.ravel, (B,)), (np.ravel, (S,))],
    "copy": [(np.copy, (M,)), (np.copy, (S,))],
    "positive": [(np.positive, (M,))],
    "clip": [
        (np.clip, (M, -0.5, 0.5)), (lambda x: np.clip(x, min=0.1), (M,)), (lambda x: np.clip(x, None, 0.2), (M,)), (np.clip, (M, V - 2, V + 1)),
        (lambda x: np.clip(x, [-0.5, 0, 0, 0], 1), (M,)), (lambda x: np.clip(x, a_min=-0.1, a_max=0.1), (S,)),
    ],
    "cumsum": [(np.cumsum, (M,)), (lambda x: np.cumsum(x, axis=0), (M,)), (lambda x: np.cumsum(x, axis=-2), (B,)), (np.add.accumulate, (M,)), (lambda x: np.add.accumulate(x, axis=1), (M,))],
    "concatenate": [
        (lambda a, b: np.concatenate([a, b]), (M, ONES)), (lambda a, b: np.concatenate((a, b), axis=-1), (M, ONES)),
        (lambda a, b: np.concatenate([a, b], axis=None), (M, V)), (lambda a: np.concatenate([a, [[1, 2, 3, 4]]]), (M,)),
        (lambda a: np.concat([a, a], axis=1), (M,)), (lambda a: np.concatenate([a[:0], a]), (V,)),
    ],
    "stack": [
        (lambda a, b: np.stack([a, b]), (M, ONES)), (lambda a, b: np.stack((a, b), axis=-1), (M, ONES)),
        (lambda a: np.stack([a, a, np.ones(4)], axis=1), (V,)), (lambda a: np.stack([a, 1.0]), (S,)), (lambda a: np.stack(a, axis=1), (B,)),
    ],
    "vstack": [(lambda a, b: np.vstack([a, b]), (M, V)), (lambda a: np.vstack([a, a]), (V,)), (lambda a: np.vstack([a, 1.0]), (S,))],
    "hstack": [(lambda a, b: np.hstack([a, b]), (M, ONES)), (lambda a: np.hstack([a, a]), (V,)), (lambda a: np.hstack([a, 1.0]), (S,))],
    "atleast_1d": [(np.atleast_1d, (S,)), (np.atleast_1d, (M,))],
    "atleast_2d": [(np.atleast_2d, (S,)), (np.atleast_2d, (V,)), (np.atleast_2d, (B,))],
    "split": [(lambda x: np.split(x, 2, axis=1)[1], (M,)), (lambda x: np.split(x, [1, 3], axis=-1)[1], (M,)), (lambda x: np.split(x, 3)[2], (M,)), (lambda x: np.split(x, [3, 1])[2], (V,))],
    "array_split": [(lambda x: np.array_split(x, 3)[0], (V,)), (lambda x: np.array_split(x, 3)[2], (V,)), (lambda x: np.array_split(x, [1, 9], axis=-1)[2], (M,)), (lambda x: np.array_split(x, [-2])[1], (V,))],
    "pad": [
        (lambda x: np.pad(x, 1), (M,)), (lambda x: np.pad(x, ((1, 0), (0, 2))), (M,)), (lambda x: np.pad(x, (1, 2), constant_values=3), (M,)),
        (lambda x: np.pad(x, ((1, 1), (2, 2)), constant_values=((1, 2), (3, 4))), (M,)), (lambda x: np.pad(x, {1: 2}), (M,)), (lambda x: np.pad(x, {-1: (0, 1)}), (M,)),
        *((lambda x, mode=mode: np.pad(x, ((2, 1), (0, 3)), mode=mode), (M,)) for mode in ("edge", "reflect", "symmetric", "wrap")),
        (lambda x: np.pad(x, 2, mode="reflect", reflect_type="even"), (V,)),
    ],
    "roll": [(lambda x: np.roll(x, 1), (M,)), (lambda x: np.roll(x, -2, axis=1), (M,)), (lambda x: np.roll(x, (1, 2), axis=(0, -1)), (M,)), (lambda x: np.roll(x, 5), (V,)), (lambda x: np.roll(x, 1, axis=(0, 1)), (M,))],
    "tile": [(lambda x: np.tile(x, 2), (M,)), (lambda x: np.tile(x, (2, 1)), (M,)), (lambda x: np.tile(x, (2, 1, 3)), (M,)), (lambda x: np.tile(x, [3]), (S,)), (lambda x: np.tile(x, ()), (V,)), (lambda x: np.tile(x, 0), (V,))],
    "repeat": [(lambda x: np.repeat(x, 2), (M,)), (lambda x: np.repeat(x, 3, axis=-1), (M,)), (lambda x: np.repeat(x, [1, 0, 2], axis=0), (M,)), (lambda x: np.repeat(x, [2], axis=1), (M,)), (lambda x: np.repeat(x, 2), (S,))],
    "take": [
        (lambda x: np.take(x, [0, 5, 5]), (M,)), (lambda x: np.take(x, [0, 2, 0], axis=1), (M,)), (lambda x: np.take(x, 1, axis=-2), (B,)),
        (lambda x: np.take(x, [[0, 1], [1, 1]], axis=0), (M,)), (lambda x: np.take(x, [True, False]), (V,)), (lambda x: np.take(x, -1), (V,)),
    ],
    "take_along_axis": [
        (lambda x: np.take_along_axis(x, np.argsort(M, axis=1), axis=1), (M,)), (lambda x: np.take_along_axis(x, np.array([[0, 0, 1, 2]]), axis=0), (M,)),
        (lambda x: np.take_along_axis(x, np.array([3, 3, 0]), axis=None), (M,)), (lambda x: np.take_along_axis(x, np.array([[[1]]]), axis=-1), (B,)),
    ],
    "diagonal": [(np.diagonal, (M,)), *((lambda x, k=k: np.diagonal(x, k), (M,)) for k in (-3, -1, 1, 3, 5)), (lambda x: np.diagonal(x, axis1=-1, axis2=0), (B,))],
    "trace": [(np.trace, (M,)), (lambda x: np.trace(x, offset=1), (M,)), (lambda x: np.trace(x, axis1=1, axis2=2), (B,))],
    "dot": [
        (np.dot, (V, V + 1)), (np.dot, (M, V)), (np.dot, (M, M.T)), (np.dot, (S, M)), (np.dot, (M, 2.5)), (np.dot, (B, V)), (np.dot, (B, M.T)),
        (np.dot, (V, B.swapaxes(1, 2))), (np.dot, (B, B.swapaxes(1, 2))), (lambda x: np.dot([1, 2, 3, 4], x), (V,)),
    ],
    "outer": [(np.outer, (V, M)), (np.outer, (S, V)), (lambda x: np.outer([1.0, 2.0], x), (V,))],
    "inner": [(np.inner, (V, V + 1)), (np.inner, (M, V)), (np.inner, (B, M)), (np.inner, (S, M)), (lambda x: np.inner([1, 2, 3, 4], x), (M,))],
    "tensordot": [
        (np.tensordot, (M, M)), (lambda a, b: np.tensordot(a, b, 1), (M, V)), (lambda a, b: np.tensordot(a, b, 0), (V, S)),
        (lambda a, b: np.tensordot(a, b, axes=([1, 2], [0, 1])), (B, M)), (lambda a, b: np.tensordot(a, b, axes=((-1,), (-1,))), (B, M)),
        (lambda a, b: np.tensordot(a, b, axes=(1, 0)), (M, V)), (lambda a: np.tensordot(np.ones(3), a, 1), (M,)),
    ],
    "einsum": [
        (lambda a, b: np.einsum("ij,kj->ik", a, b), (M, ONES)), (lambda a, b: np.einsum("ij,kj", a, b), (M, ONES)), (lambda a: np.einsum("ij->", a), (M,)),
        (lambda a: np.einsum("ij->ji", a), (M,)), (lambda a: np.einsum("ba", a), (M,)), (lambda a: np.einsum("...j->...", a), (B,)), (lambda a: np.einsum("i...->...", a), (B,)),
        (lambda a: np.einsum("ii", a), (M[:, :3],)), (lambda a: np.einsum("ii->i", a), (M[:, :3],)), (lambda a: np.einsum("iij->j", a), (RNG.standard_normal((3, 3, 2)),)),
        (lambda a: np.einsum("iii", a), (RNG.standard_normal((2, 2, 2)),)), (lambda a, b: np.einsum("bij,bij->b", a, b), (B, B + 1)),
        (lambda a, b: np.einsum("...ij,...jk", a, b), (B, np.ones((4, 2)))), (lambda a, b: np.einsum("i,j->ij", a, b), (V, V)), (lambda a: np.einsum(",i", 2.0, a), (V,)),
        (lambda a, b: np.einsum("ij,jk->ik", a, b), (M, np.ones((1, 2)))), (lambda a, b: np.einsum("ij,jk->ik", a, b), (M[:, :1], np.ones((4, 2)))),
        (lambda a, b: np.einsum("ij,j->i", a, b), (M, np.ones(1))), (lambda a, b: np.einsum("...i,...i->...", a, b), (B[:, :1], B)),
        (lambda a, b: np.einsum("...i,i...->i...", a, b), (B[:, :1, :3], M)), (lambda a, b, c: np.einsum("ij,kj,k->i", a, b, c), (M, M, np.ones(3))),
        (lambda a, b: np.einsum(" i j , k j -> i k ", a, b), (M, ONES)), (lambda a, b: np.einsum("ij,ij->", a, b, optimize=True), (M, M)),
        (lambda a, b: np.einsum(a, [0, 1], b, [2, 1], [0, 2]), (M, ONES)), (lambda a, b: np.einsum(a, [0, 1], b, [2, 1]), (M, ONES)),
        (lambda a: np.einsum(a, [30, 2]), (M,)), (lambda a: np.einsum(a, [Ellipsis, 1], [1, Ellipsis]), (B,)), (lambda a: np.einsum("Aa", a), (M,)),
        (lambda a: np.einsum("a,a,a->", a, a, a), (V,)), (lambda a: np.einsum("i,jk->jk", a, np.ones((2, 2))), (V,)), (lambda a: np.einsum("ij,k->", a, np.ones(2)), (M,)),
    ],
    "ndim": [], "shape": [], "size": [],
}  # fmt: skip
CASES = [
    pytest.param(f, arrays, id=f"{name}-{i}") for name, forms in FORMS.items() for i, (f, arrays) in enumerate(forms)
]


def test_every_composition_has_a_case():
    compositions = {
        answer.__name__ for answer in ANSWERS.values() if getattr(answer, "__module__", "") == composed.__name__
    }
    assert compositions <= set(FORMS)


@pytest.mark.parametrize(("f", "arrays"), CASES)
def test_value_is_numpys(f, arrays):
    expected = f(*arrays)
    answer = f(*map(Tensor, arrays))
    assert isinstance(answer, Tensor)
    assert answer.dtype == expected.dtype
    np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-13, atol=1e-14)
    assert answer.shape == expected.shape
    narrow = [np.asarray(a, np.float32) for a in arrays]
    assert f(*map(Tensor, narrow)).dtype == f(*narrow).dtype


@pytest.mark.parametrize(("f", "arrays"), CASES)
def test_gradients_are_derivatives(f, arrays):
    check_grad(f, *map(np.asarray, arrays), order=2)


@pytest.mark.parametrize(("f", "arrays"), [case for case in CASES if len(case.values[1]) > 1])
def test_arrays_mix_with_tensors(f, arrays):
    expected = f(*arrays)
    for i in range(len(arrays)):
        mixed = [Tensor(a, requires_grad=True) if i == j else a for j, a in enumerate(arrays)]
        answer = f(*mixed)
        assert answer.requires_grad
        np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-13, atol=1e-14)


SHAPES = [
    ((4,), (4,)), ((3, 4), (4,)), ((4,), (4, 2)), ((3, 4), (4, 2)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)), ((1, 3, 4), (2, 4, 1)), ((1, 1), (1, 1)), ((3, 1), (1, 4)), ((2, 3, 1), (1, 4)), ((3, 1), (2, 1, 4)), ((0, 4), (4, 2)), ((3, 0), (0, 2)), ((0, 3, 4), (4, 2)), ((2, 3, 4), (1, 4, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_matrix_products_of_every_shape(left, right):
    a, b = RNG.standard_normal(left), RNG.standard_normal(right)
    for product in (np.matmul, lambda x, y: x @ y):
        np.testing.assert_allclose(product(Tensor(a), Tensor(b)).numpy(), a @ b)
        check_grad(product, a, b, order=2)


@pytest.mark.parametrize(
    ("left", "right"), [((), (3,)), ((3,), ()), ((3, 4), (3, 4)), ((3,), (4,)), ((2, 3, 4), (3, 4, 5))]
)
def test_matrix_products_that_numpy_refuses(left, right):
    with pytest.raises(ValueError, match="matmul"):
        Tensor(np.ones(left)) @ Tensor(np.ones(right))


@pytest.mark.parametrize("f", [np.sum, np.mean, np.var, np.std, np.prod, np.max, np.min])
@pytest.mark.parametrize("axis", [None, 0, -1, 1, (0, 2), (-1, 0), (0, 1, 2), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_along_any_axes(f, axis, keepdims):
    expected = f(B, axis=axis, keepdims=keepdims)
    answer = f(Tensor(B), axis=axis, keepdims=keepdims)
    np.testing.assert_allclose(answer.numpy(), expected)
    if not (axis == () and f is np.std):
        check_grad(lambda x: f(x, axis=axis, keepdims=keepdims), B)


def test_sizes_and_shapes_are_numbers():
    t = Tensor(M)
    assert (np.ndim(t), np.shape(t), np.size(t), np.size(t, axis=1)) == (2, (3, 4), 12, 4)


# -- what would silently mean something else is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.take(x, [0], axis=2), lambda x: np.repeat(x, 2, axis=2), lambda x: np.split(x, 2, axis=2), lambda x: np.array_split(x, 2, axis=-3),
        lambda x: np.take_along_axis(x, np.array([[0]]), axis=5), lambda x: np.tensordot(x, x, axes=([2], [0])), lambda x: np.roll(x, 1, axis=2),
        lambda x: np.cumsum(x, axis=2), lambda x: np.stack([x], axis=4), lambda x: np.concatenate([x], axis=2), lambda x: np.diagonal(x, axis1=3), lambda x: np.flip(x, axis=2),
        lambda x: tg.softmax(x, axis=2), lambda x: tg.logsumexp(x, axis=-3),
    ],
)  # fmt: skip
def test_axes_out_of_range(f):
    with pytest.raises((np.exceptions.AxisError, IndexError)):
        f(Tensor(M))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.take_along_axis(x, np.array([0, 1]), axis=1), lambda x: np.split(x, 5, axis=1), lambda x: np.tensordot(x, x, axes=([0], [1])),
        lambda x: np.repeat(x, -1), lambda x: np.repeat(x, [1, 2], axis=0), lambda x: np.reshape(x, (5, -1)), lambda x: np.array_split(x, 0),
        lambda x: np.einsum("ij,ij", x), lambda x: np.einsum("ij->ik", x), lambda x: np.einsum("ii", x), lambda x: np.stack([x, x[0]]), lambda x: np.squeeze(x, axis=0),
        lambda x: np.broadcast_to(x, (4, 4)), lambda x: np.transpose(x, (0, 0)), lambda x: np.diagonal(x[0]), lambda x: np.matmul(x, x),
    ],
)  # fmt: skip
def test_values_that_numpy_refuses(f):
    with pytest.raises(ValueError) as numpys:  # noqa: PT011  (NumPy's own words differ)
        f(M)
    with pytest.raises(type(numpys.value)):
        f(Tensor(M))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.pad(x, 1, mode="reflect", reflect_type="odd"), lambda x: np.pad(x, 1, mode="mean"), lambda x: np.pad(x, 1, mode="edge", constant_values=1),
        lambda x: np.reshape(x, (4, 3), order="K"), lambda x: np.ravel(x, order="A"), lambda x: np.clip(x, 0, 1, casting="unsafe"),
    ],
)  # fmt: skip
def test_options_without_a_rule(f):
    with pytest.raises(NotDifferentiableError):
        f(Tensor(M))
