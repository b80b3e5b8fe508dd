"""np.linalg on Tensors: values beside NumPy, derivatives beside differences and torch, and the degenerate cases."""

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor
from tinygrad_scratch.domains import Matrices
from tinygrad_scratch.errors import CaptureError, NotDifferentiableError
from tinygrad_scratch.testing import check_grad

L = np.linalg


def draw(kind, *shape, seed=0):
    return Matrices(kind).sample(np.random.default_rng(seed), shape)


A, TALL, WIDE = draw("general", 3, 3), draw("general", 4, 2), draw("general", 2, 3)
STACK, SPD, SYM = draw("general", 2, 3, 3), draw("positive", 3, 3), draw("symmetric", 2, 3, 3)
V, W = np.array([0.5, -1.5, 2.0]), np.array([1.0, 0.25, -0.75])

CALLS = {
    "inv": (L.inv, STACK),
    "det": (L.det, STACK),
    "slogdet": (L.slogdet, STACK),
    "solve vector": (L.solve, A, V),
    "solve matrix": (L.solve, A, TALL[:3]),
    "solve stacks": (L.solve, STACK, V),
    "lstsq": (L.lstsq, TALL, np.arange(4.0)),
    "lstsq of several": (L.lstsq, TALL, draw("general", 4, 3)),
    "lstsq, wide": (L.lstsq, WIDE, V[:2]),
    "cholesky": (L.cholesky, SPD),
    "cholesky, upper": (lambda a: L.cholesky(a, upper=True), SPD),
    "qr": (L.qr, TALL),
    "qr, wide": (L.qr, WIDE),
    "qr, complete": (lambda a: L.qr(a, "complete"), TALL[:3]),
    "qr, r": (lambda a: L.qr(a, mode="r"), STACK),
    "svd": (L.svd, A),
    "svd, full": (L.svd, TALL[:3]),
    "svd, full and wide": (L.svd, WIDE),
    "svd, reduced": (lambda a: L.svd(a, full_matrices=False), TALL),
    "svd, values": (lambda a: L.svd(a, compute_uv=False), STACK),
    "svd, hermitian": (lambda a: L.svd(a, hermitian=True), SYM),
    "svd, hermitian values": (lambda a: L.svd(a, hermitian=True, compute_uv=False), SYM),
    "svdvals": (L.svdvals, WIDE),
    "eigh": (L.eigh, SYM),
    "eigh, U": (lambda a: L.eigh(a, UPLO="U"), SYM),
    "eigvalsh": (L.eigvalsh, SYM),
    "pinv": (L.pinv, TALL),
    "pinv, rtol": (lambda a: L.pinv(a, rtol=1e-9), WIDE),
    "pinv, hermitian": (lambda a: L.pinv(a, hermitian=True), SYM),
    "matrix_power": (lambda a: L.matrix_power(a, 5), STACK),
    "matrix_power 1": (lambda a: L.matrix_power(a, 1), A),
    "matrix_power -3": (lambda a: L.matrix_power(a, -3), A),
    "multi_dot of 2": (lambda a, b: L.multi_dot([a, b]), WIDE, A),
    "multi_dot of vectors": (lambda a, b, c: L.multi_dot([a, b, c]), V, A, W),
    "multi_dot of 4": (lambda a, b, c: L.multi_dot([a, b, b, c]), WIDE, A, TALL[:3]),
    **{f"cond, {p}": (lambda a, p=p: L.cond(a, p), A) for p in (None, 2, -2, 1, -1, np.inf, -np.inf, "fro", "nuc")},
    "norm": (L.norm, STACK),
    "norm of a vector": (L.norm, V),
    "norm, keepdims": (lambda a: L.norm(a, keepdims=True), A),
    **{f"norm, {p}": (lambda a, p=p: L.norm(a, p), V) for p in (2, 1, np.inf, -np.inf, 3, 2.5, 0.5, -1, -2)},
    **{f"norm over an axis, {p}": (lambda a, p=p: L.norm(a, p, axis=1, keepdims=True), A) for p in (None, 1, 3, np.inf)},
    **{f"norm of matrices, {p}": (lambda a, p=p: L.norm(a, p, axis=(0, 2)), STACK) for p in (None, "fro", "nuc", 1, -1)},
    **{f"norm of matrices, kept, {p}": (lambda a, p=p: L.norm(a, p, (2, -2), True), STACK) for p in (2, -2, np.inf, -np.inf, 1)},
    "norm of one matrix": (lambda a: L.norm(a, 2), A),
    "vector_norm": (L.vector_norm, STACK),
    "vector_norm, axes": (lambda a: L.vector_norm(a, axis=(0, 2), ord=3, keepdims=True), STACK),
    "matrix_norm": (L.matrix_norm, STACK),
    "matrix_norm, nuc": (lambda a: L.matrix_norm(a, ord="nuc", keepdims=True), STACK),
    "cross": (L.cross, A, V),
    "np.cross": (lambda a, b: np.cross(a, b, axisa=0, axisc=0), A, W),
    "outer": (L.outer, V, W),
    "trace": (lambda a: L.trace(a, offset=1), STACK),
    "diagonal": (lambda a: L.diagonal(a, offset=-1), STACK),
    "matmul": (L.matmul, STACK, A),
    "tensordot": (lambda a, b: L.tensordot(a, b, axes=([2], [0])), STACK, A),
    "vecdot": (lambda a, b: L.vecdot(a, b, axis=0), A, A[::-1].copy()),
    "np.vecdot": (np.vecdot, STACK, V),
    "matrix_transpose": (L.matrix_transpose, STACK),
    "np.matrix_transpose": (np.matrix_transpose, STACK),
    "tensorinv": (lambda a: L.tensorinv(a.reshape(2, 3, 3, 2)), draw("general", 6, 6)),
    "tensorsolve": (lambda a, b: L.tensorsolve(a.reshape(2, 3, 6), b), draw("general", 6, 6), WIDE),
    "tensorsolve, axes": (lambda a, b: L.tensorsolve(a.reshape(3, 6, 2), b, axes=(0,)), draw("general", 6, 6), A[0].repeat(2)),
    "kron": (np.kron, WIDE, V),
    "kron of matrices": (np.kron, WIDE, A),
    "vander": (np.vander, V),
    "vander, increasing": (lambda a: np.vander(a, 4, increasing=True), V),
}  # fmt: skip


def parts(answer):
    return list(answer) if isinstance(answer, tuple) else [answer]


def floats(answer):
    return [x for x in parts(answer) if isinstance(x, Tensor) and x.dtype.kind == "f" and x.size]


@pytest.mark.parametrize("call", CALLS)
def test_values_are_numpys(call):
    f, *arrays = CALLS[call]
    expected, found = f(*arrays), f(*(Tensor(a, requires_grad=True) for a in arrays))
    assert type(found) is (type(expected) if isinstance(expected, tuple) else Tensor)
    for x, y in zip(parts(expected), parts(found), strict=True):
        assert np.shape(x) == np.shape(y)
        np.testing.assert_allclose(getattr(y, "_data", y), x, rtol=1e-9, atol=1e-12)
    for y in floats(f(*(Tensor(a, np.float32) for a in arrays))):
        assert y.dtype == np.float32


@pytest.mark.parametrize("call", CALLS)
def test_derivatives_to_second_order(call):
    f, *arrays = CALLS[call]
    for n in range(len(floats(f(*map(Tensor, arrays))))):
        check_grad(lambda *x, n=n: floats(f(*x))[n], *arrays, order=2, rtol=3e-6)


@pytest.mark.parametrize(
    "call", ["solve matrix", "cholesky", "qr", "svd, reduced", "eigh", "slogdet", "det", "norm of matrices, nuc"]
)
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_jacobians_take_many_tangents_at_once(call, mode):
    f, a, *rest = CALLS[call]
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(a.shape)
    direction = direction + direction.mT if a.shape[-1] == a.shape[-2] else direction
    for n in range(len(floats(f(*map(Tensor, (a, *rest)))))):

        def one(x, n=n):
            return floats(f(x, *map(Tensor, rest)))[n]

        jacobian, tangent = tg.jacobian(one, mode=mode)(a), tg.jvp(one, [a], [direction])[1]
        np.testing.assert_allclose(np.tensordot(jacobian, direction, a.ndim), tangent, rtol=1e-9, atol=1e-9)


def test_float32_gradients_stay_float32():
    for f, *arrays in CALLS.values():
        tensors = [Tensor(a, np.float32, requires_grad=True) for a in arrays]
        sum(np.sum(y) for y in floats(f(*tensors))).backward()
        assert all(t.grad.dtype == np.float32 and np.isfinite(t.grad.numpy()).all() for t in tensors)


@pytest.mark.parametrize(
    ("f", "a"),
    [
        (lambda linalg, a: (linalg.cholesky(a) ** 3).sum(), SPD),
        (lambda linalg, a: (linalg.eigh(a)[1] ** 2 @ linalg.eigh(a)[0][:, None]).sum(), SPD),
        (lambda linalg, a: (linalg.svd(a, False)[0] ** 2 @ linalg.svd(a, False)[2] ** 2).sum(), TALL),
        (lambda linalg, a: (linalg.svd(a, False)[0] ** 2 @ linalg.svd(a, False)[2] ** 2).sum(), WIDE),
        (lambda linalg, a: (linalg.qr(a)[0] @ linalg.qr(a)[1] ** 2).sum(), TALL),
        (lambda linalg, a: linalg.slogdet(a)[1].sum() + linalg.det(a).sum(), STACK),
        (lambda linalg, a: (linalg.pinv(a) ** 3).sum() + linalg.norm(a), TALL),
        (lambda linalg, a: linalg.solve(a, linalg.inv(a) ** 2).sum() + linalg.cond(a).sum(), STACK),
    ],
)
def test_gradients_are_torchs(f, a):
    torch = pytest.importorskip("torch", reason="compares with torch")
    variable = torch.tensor(a, requires_grad=True)
    f(torch.linalg, variable).backward()
    np.testing.assert_allclose(tg.grad(lambda a: f(np.linalg, a))(a), variable.grad.numpy(), rtol=1e-9, atol=1e-12)


# -- where the mathematics is degenerate -------------------------------------------------------------------------------


def gradient_of(f, x):
    return tg.grad(f)(x)


@pytest.mark.parametrize("order", [None, 2, 1, np.inf, -np.inf, 3, 0.5, 0])
def test_the_norm_of_a_zero_vector_has_derivative_0(order):
    assert gradient_of(lambda x: L.norm(x, order), np.zeros(3)).tolist() == [0, 0, 0]
    assert gradient_of(lambda x: np.sum(L.norm(x, order, axis=1)), np.array([[0.0, 0], [3, 4]]))[0].tolist() == [0, 0]


@pytest.mark.parametrize("order", [None, "fro", "nuc", 1, np.inf])
def test_the_norm_of_a_zero_matrix_has_derivative_0(order):
    assert not gradient_of(lambda x: L.norm(x, order), np.zeros((2, 3))).any()


def test_powers_of_zero_elements_do_not_make_nan():
    np.testing.assert_allclose(gradient_of(lambda x: L.norm(x, 3), np.array([0.0, 3, 4]))[0], 0)
    assert gradient_of(lambda x: L.norm(x, 0.5), np.array([0.0, 4.0])).tolist() == [0, 1]


def test_det_is_differentiated_at_singular_matrices():
    singular = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    cofactors = [[-3, 6, -3], [6, -12, 6], [-3, 6, -3]]
    np.testing.assert_allclose(gradient_of(L.det, singular), cofactors, atol=1e-12)
    check_grad(L.det, singular / 9, order=2)
    assert not gradient_of(L.det, np.ones((3, 3))).round(12).any()  # rank 1: all cofactors are 0
    check_grad(L.det, np.ones((3, 3)), order=2)
    check_grad(L.det, np.eye(4), order=2)
    check_grad(L.det, np.zeros((2, 2)), order=2)
    assert gradient_of(L.det, np.zeros((1, 1))).tolist() == [[1]]


def test_singular_matrices_have_no_inverse_to_differentiate():
    ones = Tensor(np.ones((2, 2)), requires_grad=True)
    for f in (L.inv, lambda a: L.solve(a, np.ones(2)), lambda a: L.cond(a, 1)):
        with pytest.raises(L.LinAlgError, match="Singular"):
            f(ones)
    sign, logarithm = L.slogdet(ones)
    assert (sign.item(), logarithm.item()) == (0, -np.inf)
    with pytest.raises(L.LinAlgError, match="Singular"):
        logarithm.backward()


@pytest.mark.parametrize("p", [None, 2, -2])
def test_the_condition_of_zeros_is_infinite_as_numpys(p):
    zeros = np.zeros((2, 2))
    assert L.cond(Tensor(zeros), p).item() == L.cond(zeros, p) == np.inf


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("f", [L.eigvalsh, L.inv, L.svdvals, L.cholesky])
def test_what_is_not_finite_is_as_numpy_has_it(f, value):
    a = np.full((2, 2), value)
    try:
        expected = f(a)
    except L.LinAlgError:
        with pytest.raises(L.LinAlgError):
            f(Tensor(a))
    else:
        np.testing.assert_array_equal(f(Tensor(a)).numpy(), expected)


def test_equal_eigenvalues():
    """Of the values, a right derivative; of the vectors, none: NaN, not a number that looks like one."""
    c = np.array([[1.0, 2.0], [2.0, 5.0]])
    assert gradient_of(lambda a: np.sum(L.eigvalsh(a) ** 2), np.eye(2)).tolist() == [[2, 0], [0, 2]]
    assert gradient_of(lambda a: np.sum(L.svdvals(a)), 2 * np.eye(2)).tolist() == [[1, 0], [0, 1]]
    assert np.isnan(gradient_of(lambda a: np.sum(L.eigh(a).eigenvectors * c), np.eye(2))).any()
    assert np.isnan(gradient_of(lambda a: np.sum(L.svd(a).U * c), np.eye(2))).any()


def test_a_pair_that_nobody_looks_at_does_no_harm():
    turn = L.qr(A).Q
    for a in (np.diag([1.0, 1.0, 3.0]), turn @ np.diag([1.0, 1.0, 3.0]) @ turn.T):
        check_grad(lambda a: L.eigh((a + a.mT) / 2).eigenvectors[:, 2] ** 2, a)
        check_grad(lambda a: L.svd(a).U[:, 0] ** 2, a)
    for b in (
        np.diag([3.0, 0.0, 0.0])[:, :2],
        np.outer(V, W),
    ):  # rank 1: the vectors of singular values 0 are arbitrary
        check_grad(lambda b: L.svd(b, full_matrices=False).U[:, 0] ** 2, b)


def test_bases_of_what_is_left_follow():
    """Of a basis that is arbitrary, the space that it spans is not."""
    tall = draw("general", 5, 2)
    check_grad(lambda a: (q := L.qr(a, "complete").Q[:, 2:]) @ q.mT, tall, order=2)
    check_grad(lambda a: (u := L.svd(a).U[:, 2:]) @ u.mT, tall, order=2)
    check_grad(lambda a: (v := L.svd(a).Vh[2:]).mT @ v, tall.T, order=2)


def test_rank_deficient_least_squares():
    tall = np.array([[1.0, 2], [2, 4], [3, 6]])
    x, residuals, rank, s = L.lstsq(Tensor(tall), np.ones(3))
    expected = L.lstsq(tall, np.ones(3))
    assert residuals.shape == (0,)
    assert rank == 1
    np.testing.assert_allclose(x.numpy(), expected[0])
    np.testing.assert_allclose(s.numpy(), expected[3], atol=1e-12)
    u, v = np.ones(3), np.array([1.0, 2.0])  # along matrices of rank 1, the rank is constant
    check_grad(lambda u, v: L.lstsq(np.outer(u, v), np.arange(3.0))[0], u, v)


# -- symmetric matrices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f", [L.cholesky, L.eigvalsh, L.eigh, lambda a: L.pinv(a, hermitian=True)])
def test_a_matrix_that_is_not_symmetric_is_refused(f):
    with pytest.raises(ValueError, match=r"takes symmetric matrices .* pass \(a \+ a\.mT\) / 2"):
        f(Tensor(np.tril(SPD)))
    f(Tensor(SPD * (1 + 1e-6 * A)))  # rounding is no reason


def test_gradients_of_symmetric_functions_are_symmetric():
    for f in (lambda a: 2 * np.sum(np.log(np.diagonal(L.cholesky(a)))), lambda a: np.sum(np.log(L.eigvalsh(a)))):
        np.testing.assert_allclose(gradient_of(f, SPD), L.inv(SPD))


# -- refusals, shapes, capture -----------------------------------------------------------------------------------------


def test_what_is_refused_says_why():
    a, t = Tensor(A, requires_grad=True), Tensor(TALL)
    for f, error, message in (
        (lambda: L.eig(a), NotDifferentiableError, "complex; use np.linalg.eigh or np.linalg.eigvalsh for symmetric"),
        (
            lambda: L.eigvals(a),
            NotDifferentiableError,
            "complex; use np.linalg.eigh or np.linalg.eigvalsh for symmetric",
        ),
        (lambda: L.qr(a, "raw"), NotDifferentiableError, "use 'reduced', 'complete' or 'r'"),
        (lambda: L.trace(a, dtype=np.float32), NotDifferentiableError, "does not take dtype"),
        (lambda: L.inv(t), L.LinAlgError, "square"),
        (lambda: L.cholesky(t), L.LinAlgError, "square"),
        (lambda: L.norm(a, 5), ValueError, "no order of matrices"),
        (lambda: L.norm(a, "fro", axis=0), ValueError, "order of matrices"),
        (lambda: L.norm(Tensor(STACK), 2), ValueError, "over 1 or 2 axes, not 3"),
        (lambda: L.outer(a, a), ValueError, "two vectors"),
        (lambda: L.multi_dot([a]), ValueError, "at least two"),
        (lambda: L.multi_dot([a, Tensor(STACK), a]), L.LinAlgError, "takes matrices"),
        (lambda: np.cross(t, t), ValueError, "length 3"),
        (lambda: np.vecdot(a, t), ValueError, "equal length"),
        (lambda: L.lstsq(t, V), L.LinAlgError, r"\(4, 2\) and \(3,\)"),
        (lambda: L.tensorsolve(a, Tensor(np.ones(2))), L.LinAlgError, "hold"),
        (lambda: np.vander(a), ValueError, "takes a vector"),
    ):
        with pytest.raises(error, match=message):
            f()


def test_ranks_are_constant():
    rank = L.matrix_rank(Tensor(STACK, requires_grad=True))
    assert rank.tolist() == [3, 3]
    assert not rank.requires_grad


def test_integers_are_computed_as_floats():
    whole = np.array([[2, 1], [1, 3]])
    for f in (L.inv, L.det, L.norm, L.eigvalsh, L.cholesky, L.svdvals):
        np.testing.assert_allclose(f(Tensor(whole)).numpy(), f(whole))


def test_captured_steps_replay_and_say_that_they_run_on_numpy(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_SCRATCH_CACHE", str(tmp_path))

    def step(a, b):
        a, b = tg.as_tensor(a).detach().requires_grad_(), tg.as_tensor(b)
        gram = a @ a.mT + np.eye(3)
        q = L.qr(a).R
        loss = (
            np.sum(L.solve(gram, b) ** 2)
            + L.slogdet(gram).logabsdet
            + np.sum(L.svd(a).U[:, 0] ** 3)
            + L.norm(q, 3, 0).sum()
        )
        loss = loss + np.sum(L.cholesky(gram)) + np.sum(L.eigh(gram).eigenvalues ** 2) + L.det(a) + np.sum(L.pinv(a))
        return loss, *tg.gradients(loss, [a])

    for backend in ("numpy", "numba"):
        if backend == "numba":
            pytest.importorskip("numba", reason="needs numba")
        captured = tg.capture(step, backend=backend)
        for seed in range(4):
            a = draw("general", 3, 3, seed=seed)
            for found, expected in zip(captured(a, V), step(a, V), strict=True):
                np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-9)
        assert [plan.calls for plan in captured.plans] == [2]
        if backend == "numba":
            assert "NumPy instead of compiled code: no lowering for" in captured.explain()


def test_least_squares_reads_its_rank():
    step = tg.capture(lambda a: L.lstsq(tg.as_tensor(a), np.ones(4))[0])
    with pytest.raises(CaptureError, match="reads the value"):
        step(TALL)
