"""Seeing inside: what a look says, against NumPy; that it changes nothing; and the table of a network."""

import copy
import importlib.util
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import nn, optim
from tinygrad_scratch.nn.watch import Look

BACKENDS = ["eager", "numpy"] + ["numba"] * (importlib.util.find_spec("numba") is not None)


def loss(model, x, labels):
    return nn.functional.cross_entropy(model(x), labels)


def network(seed=0, drop=0.5, width=8):
    rng = np.random.default_rng(seed)
    parts = [nn.Linear(6, width, rng=rng), nn.ReLU(), *([nn.Dropout(drop, rng=rng)] if drop else [])]
    return nn.Sequential(*parts, nn.Linear(width, 3, rng=rng))


def batch(n=10, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)).astype(np.float32), rng.integers(0, 3, n)


def stepper(model, optimizer, backend="eager"):
    def step(x, labels):
        optimizer.zero_grad()
        value = loss(model, x, labels)
        value.backward()
        optimizer.step()
        return value

    return step if backend == "eager" else tg.capture(step, backend=backend)


class TestLook:
    def test_against_numpy(self):
        model, (x, labels) = network(drop=0), batch()
        first, _, last = model
        w1, b1, w2, b2 = (p.numpy().astype(float) for p in model.parameters())
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        watch = nn.Watch(model, loss, every=3)
        with watch(x, labels):
            stepper(model, optimizer)(x, labels)
        z = x @ w1.T + b1
        h = np.maximum(z, 0)
        logits = h @ w2.T + b2
        delta = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        delta[np.arange(10), labels] -= 1
        delta /= 10
        dh = delta @ w2
        dz = dh * (z > 0)
        norm, expected = np.linalg.norm, {}
        for name, y, gradient in (("0", z, dz), ("1", h, dh), ("2", logits, delta)):
            expected[name] = {"activation": np.sqrt(np.mean(y**2)), "gradient": norm(gradient)}
        for name, w, b, dw, db in (("0", w1, b1, dz.T @ x, dz.sum(0)), ("2", w2, b2, delta.T @ h, delta.sum(0))):
            weight, gradient = np.hypot(norm(w), norm(b)), np.hypot(norm(dw), norm(db))
            expected[name] |= {"weight": weight, "weight_gradient": gradient, "update": 0.1 * gradient / weight}
        assert [(row.step, row.layer, row.kind) for row in watch.rows] == [
            (0, "0", "Linear"),
            (0, "1", "ReLU"),
            (0, "2", "Linear"),
        ]
        for row, values in zip(watch.rows, expected.values(), strict=True):
            for name in ("activation", "gradient", "weight", "weight_gradient", "update"):
                assert getattr(row, name) == (pytest.approx(values[name], rel=1e-4) if name in values else None)
        assert first.weight.grad is not None
        assert last.training

    @pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
    @given(st.integers(0, 8))
    def test_dead_units_are_counted(self, activation, dead):
        model = nn.Sequential(nn.Linear(6, 8, rng=0), activation(), nn.Linear(8, 3, rng=1))
        with tg.no_grad():
            model[0].bias[:dead] = -1000
        watch = nn.Watch(model, loss)
        with watch(*batch()):
            pass
        assert [row.dead for row in watch.rows] == [0, dead / 8, dead == 8]

    def test_units_of_a_convolution_are_its_channels(self):
        model = nn.Sequential(nn.Conv2d(1, 4, 3, rng=0), nn.ReLU())
        with tg.no_grad():
            model[0].bias[:3] = -1000
        watch = nn.Watch(model, lambda model, x: np.mean(model(x)))
        with watch(np.random.default_rng(0).random((2, 1, 6, 6), np.float32)):
            pass
        assert watch.rows[1].dead == 0.75

    def test_what_cannot_be_seen_is_none(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3, rng=0))
        watch = nn.Watch(model, loss)
        x, labels = batch(1)
        with watch(x, labels):
            pass
        flat, linear = watch.rows
        assert (flat.gradient, flat.dead, flat.weight, flat.weight_gradient, flat.update) == (None,) * 5
        assert linear.dead is None
        assert linear.update == 0


class TestLeavesTheTrainingAlone:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_the_same_bits_with_and_without(self, backend):
        weights = []
        for every in (0, 3):
            model = network()
            optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            step, rng = stepper(model, optimizer, backend), np.random.default_rng(2)
            watch = nn.Watch(model, loss, every=every or 1)
            for n in range(10):
                x, labels = batch(seed=n)
                if every:
                    with watch(x, labels):
                        value = step(x, labels)
                else:
                    value = step(x, labels)
                assert rng.random() < 1
            if every:
                assert sorted({row.step for row in watch.rows}) == [0, 3, 6, 9]
                assert all(0 < row.update < 1 for row in watch.rows if row.kind == "Linear")
            state = [rng for part in model.modules() if isinstance(rng := vars(part).get("rng"), np.random.Generator)]
            weights.append((model.state_dict(), state[0].bit_generator.state, float(value)))
        (one, state, value), (other, state2, value2) = weights
        assert (state, value) == (state2, value2)
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)

    def test_it_sees_what_dropout_is_about_to_draw(self):
        model, (x, labels) = network(), batch()
        found = []
        model[2].register_forward_hook(lambda module, inputs, output: found.append(output.numpy()))
        watch = nn.Watch(model, loss)
        with watch(x, labels):
            loss(model, x, labels)
        row = next(row for row in watch.rows if row.kind == "Dropout")
        assert row.activation == pytest.approx(np.sqrt(np.mean(found[-1] ** 2)), rel=1e-5)

    def test_running_statistics_and_gradients_stay(self):
        model = nn.Sequential(nn.Linear(6, 4, rng=0), nn.BatchNorm1d(4), nn.Linear(4, 3, rng=1))
        before = model.state_dict()
        with nn.Watch(model, loss)(*batch()):
            assert all(p.grad is None for p in model.parameters())
        assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())

    def test_a_module_with_a_captured_method(self):
        class Net(nn.Module):
            def __init__(self):
                self.out = nn.Linear(6, 3, rng=0)

            def forward(self, x):
                return self.out(x)

            @tg.capture(backend="numpy")
            def mean(self, x):
                return np.mean(self.forward(x))

        net, (x, labels) = Net(), batch()
        expected = [float(net.mean(x)) for _ in range(3)]
        twin = copy.deepcopy(net)
        with tg.no_grad():
            twin.out.weight[...] = 0
            twin.out.bias[...] = 2
        assert [float(twin.mean(x)) for _ in range(3)] == [2, 2, 2]
        assert float(net.mean(x)) == expected[-1]
        with nn.Watch(net, loss)(x, labels):
            pass


class TestCounting:
    def test_steps_made_elsewhere(self):
        watch = nn.Watch(network(), loss, every=4)
        assert watch.left == 0
        with watch(*batch()):
            pass
        assert watch.left == 3
        watch.advance(2)
        assert watch.left == 1
        watch.advance()
        with watch(*batch()):
            pass
        assert {row.step for row in watch.rows} == {0, 4}

    def test_state(self):
        model = network()
        watch, other = (nn.Watch(model, loss, every=4) for _ in "12")
        for _ in range(5):
            with watch(*batch()):
                pass
        other.load_state_dict(json.loads(json.dumps(watch.state_dict())))
        assert (other.steps, other.rows, other.left) == (watch.steps, watch.rows, watch.left)
        assert isinstance(other.rows[0], Look)

    def test_a_step_that_fails_is_not_counted(self):
        watch = nn.Watch(network(), loss)
        with pytest.raises(KeyError), watch(*batch()):
            raise KeyError
        assert (watch.steps, watch.rows) == (0, [])

    def test_misuse(self):
        with pytest.raises(ValueError, match="every is 0"):
            nn.Watch(network(), loss, every=0)
        with pytest.raises(TypeError, match=r"with watch\(x, targets\)"), nn.Watch(network(), loss):
            pass


class TestSummary:
    @given(st.lists(st.integers(1, 30), min_size=2, max_size=5))
    def test_counts(self, sizes):
        parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
        found = nn.Sequential(*parts).summary((sizes[0],))
        assert found.multiply_adds == sum(a * b for a, b in pairwise(sizes))
        assert found.parameters == found.multiply_adds + sum(sizes[1:])
        assert [row.output for row in found.rows] == [(size,) for size in sizes[1:] for _ in "12"]

    def test_lenet(self):
        model = nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU()),
            *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)),
        )
        found = model.summary((1, 28, 28))
        assert [(row.output, row.parameters, row.multiply_adds) for row in found.rows if row.multiply_adds] == [
            ((6, 28, 28), 156, 28 * 28 * 6 * 25),
            ((16, 10, 10), 2416, 100 * 16 * 6 * 25),
            ((120,), 48_120, 48_000),
            ((84,), 10_164, 10_080),
            ((10,), 850, 840),
        ]
        assert found.parameters == 61_706
        shown = str(found).splitlines()
        assert shown[0].split() == ["layer", "kind", "output", "parameters", "multiply-adds"]
        assert shown[2].split() == ["0", "Conv2d", "(6,", "28,", "28)", "156", "117,600"]
        assert shown[-1].split() == ["total", "61,706", "416,520"]
        assert repr(found) == str(found)

    def test_strides_and_groups(self):
        found = nn.Sequential(nn.Conv2d(4, 8, (3, 1), stride=2, groups=2, bias=False)).summary((4, 9, 9))
        assert found.rows == (("0", "Conv2d", (8, 4, 5), 8 * 2 * 3, 4 * 5 * 8 * 2 * 3),)

    def test_shared_unused_and_nested_layers(self):
        class Net(nn.Module):
            def __init__(self):
                self.one = nn.Linear(3, 3)
                self.block = nn.Sequential(nn.ReLU(), nn.Linear(3, 3))
                self.idle = nn.Linear(5, 5)

            def forward(self, x):
                return self.one(self.block(self.one(x)))

        found = Net().summary((3,))
        expected = [
            ("one", (3,), 12),
            ("block.0", (3,), 0),
            ("block.1", (3,), 12),
            ("one", (3,), 0),
            ("idle", None, 30),
        ]
        assert [(row.layer, row.output, row.parameters) for row in found.rows] == expected
        assert (found.parameters, found.multiply_adds) == (54, 27)
        assert "not called" in str(found)

    def test_a_layer_of_ones_own(self):
        class Square(nn.Module):
            def __init__(self):
                self.weight = nn.Parameter(np.ones((4, 4), np.float32))

            def forward(self, x):
                return np.matmul(x, self.weight)

            def multiply_adds(self, output):
                return 4 * 4

        found = Square().summary((4,))
        assert found.rows == (("", "Square", (4,), 16, 16),)
        assert "(itself)" in str(found)

    def test_it_changes_nothing(self):
        model = nn.Sequential(nn.Linear(6, 4, rng=0), nn.BatchNorm1d(4), nn.Dropout(rng=3), nn.Linear(4, 3, rng=1))
        before, state = model.state_dict(), model[2].rng.bit_generator.state
        model.summary((6,))
        assert all(part.training for part in model.modules())
        assert model[2].rng.bit_generator.state == state
        assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())

    def test_indices_as_input(self):
        model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 2))
        found = model.summary((7,), dtype=np.int64)
        assert [row.output for row in found.rows] == [(7, 8), (7, 2)]
        assert found.multiply_adds == 7 * 16

    def test_an_input_that_does_not_fit(self):
        with pytest.raises(ValueError, match=r"core dimension|shape"):
            nn.Sequential(nn.Linear(6, 3)).summary((5,))
