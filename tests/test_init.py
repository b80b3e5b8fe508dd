"""Initialisers: what they promise, the same draws from the same seed, and torch's numbers where they are not random."""

from math import erf, exp, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_scratch import nn
from tinygrad_scratch.nn import init


def weight(*shape):
    return nn.Parameter(np.zeros(shape), np.float64)


class TestOrthogonal:
    @given(st.integers(1, 6), st.integers(1, 6), st.floats(0.1, 3), st.integers(0, 5))
    def test_rows_or_columns_are_orthonormal(self, rows, columns, gain, seed):
        w = init.orthogonal_(weight(rows, columns), gain, rng=seed).numpy()
        product = w @ w.T if rows <= columns else w.T @ w
        np.testing.assert_allclose(product, gain**2 * np.eye(len(product)), atol=1e-12)

    def test_of_a_convolution(self):
        w = init.orthogonal_(weight(4, 3, 2, 2), rng=0).numpy().reshape(4, -1)
        np.testing.assert_allclose(w @ w.T, np.eye(4), atol=1e-12)

    def test_no_direction_is_preferred(self):
        rng = np.random.default_rng(0)
        corners = np.array([init.orthogonal_(weight(2, 2), rng=rng).numpy()[0, 0] for _ in range(2000)])
        assert abs(corners.mean()) < 0.05  # a cosine of an angle drawn evenly
        assert np.mean(corners**2) == pytest.approx(0.5, abs=0.03)


class TestTruncated:
    @pytest.mark.parametrize(
        ("mean", "std", "a", "b"),
        [(0, 1, -2, 2), (1, 0.5, 0, 1.2), (0, 1, 1.5, 9), (0, 1, 8, 1e9), (3, 2, -60, -20), (0, 1, 9, 9.01)],
    )
    def test_moments(self, mean, std, a, b):
        x = init.trunc_normal_(weight(200, 200), mean, std, a, b, rng=0).numpy()
        assert x.min() >= a
        assert x.max() <= b
        grid = np.linspace(max(a, mean - 40 * std), min(b, mean + 40 * std), 2_000_001)
        z = (grid - mean) / std
        density = np.exp((np.min(z * z) - z * z) / 2)
        expected = (grid * density).sum() / density.sum()
        spread = sqrt(((grid - expected) ** 2 * density).sum() / density.sum())
        assert x.mean() == pytest.approx(expected, abs=5 * spread / 200)
        assert x.std() == pytest.approx(spread, rel=0.03)

    def test_what_cannot_be(self):
        for a, b, std in ((1, 1, 1), (2, 1, 1), (0, 1, 0)):
            with pytest.raises(ValueError, match="it needs a < b and std > 0"):
                init.trunc_normal_(weight(2), 0, std, a, b)

    def test_the_default_spread(self):
        share = erf(sqrt(2))
        expected = sqrt(1 - 4 * exp(-2) / sqrt(2 * pi) / share)
        assert init.trunc_normal_(weight(300, 300), rng=1).numpy().std() == pytest.approx(expected, rel=0.01)


class TestOthers:
    def test_eye_and_dirac(self):
        assert init.eye_(weight(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
        x = np.random.default_rng(0).normal(size=(2, 4, 5, 5))
        layer = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False, dtype=np.float64, rng=0)
        init.dirac_(layer.weight, groups=2)
        np.testing.assert_allclose(layer(x).numpy(), x)

    @given(st.floats(0, 1), st.integers(1, 20))
    def test_sparse(self, sparsity, rows):
        w = init.sparse_(weight(rows, 7), sparsity, 2.0, rng=0).numpy()
        assert ((w == 0).sum(axis=0) == np.ceil(sparsity * rows)).all()

    @pytest.mark.parametrize("name", ["orthogonal_", "trunc_normal_", "sparse_"])
    def test_same_seed_same_bits(self, name):
        arguments = (0.5,) if name == "sparse_" else ()
        one, two, other = (getattr(init, name)(weight(5, 4), *arguments, rng=seed).numpy() for seed in (1, 1, 2))
        assert (one == two).all()
        assert (one != other).any()

    def test_shapes(self):
        for name, shape, arguments in (
            ("eye_", (3,), ()),
            ("sparse_", (3, 2, 1), (0.1,)),
            ("dirac_", (3, 3), ()),
            ("orthogonal_", (3,), ()),
        ):
            with pytest.raises(ValueError, match=r"shape \(3"):
                getattr(init, name)(weight(*shape), *arguments)
        with pytest.raises(ValueError, match="out divisible by 2 groups"):
            init.dirac_(weight(3, 2, 1), groups=2)


class TestTorch:
    @pytest.mark.parametrize("shape", [(4, 4, 3), (6, 2, 3, 2), (2, 5, 1, 2, 3)])
    @pytest.mark.parametrize("groups", [1, 2])
    def test_dirac(self, shape, groups):
        torch = pytest.importorskip("torch", reason="torch is not installed: parity with it is not checked")
        theirs = torch.nn.init.dirac_(torch.zeros(shape), groups).numpy()
        assert init.dirac_(weight(*shape), groups).tolist() == theirs.tolist()

    @pytest.mark.parametrize("shape", [(3, 5), (6, 2, 3), (6, 2, 3, 5)])
    def test_fans(self, shape):
        torch = pytest.importorskip("torch", reason="torch is not installed: parity with it is not checked")
        assert init.fans(weight(*shape)) == torch.nn.init._calculate_fan_in_and_fan_out(torch.zeros(shape))

    @pytest.mark.parametrize(
        "word", ["linear", "conv1d", "conv2d", "conv3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
    )
    def test_gains(self, word):
        torch = pytest.importorskip("torch", reason="torch is not installed: parity with it is not checked")
        assert init.calculate_gain(word) == pytest.approx(torch.nn.init.calculate_gain(word))
