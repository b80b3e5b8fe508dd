"""Normalisation, Embedding, ELU, GELU, SiLU, containers, hooks: formulas in NumPy, train and eval, captured; torch."""

from math import erf, exp
from typing import Any

import numpy as np
import pytest
from capturing import BACKENDS, assert_same, compiled_steps, needs_numba, tolerance_for  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.nn import functional

RNG = np.random.default_rng(0)


class TestErf:
    def test_it_is_erf(self):
        x = np.concatenate(
            [np.linspace(-7, 7, 4001), np.logspace(-300, 2, 500), [0.46875, -0.46875, 4.0, np.inf, -np.inf]]
        )
        expected = np.array([erf(v) for v in x])
        np.testing.assert_allclose(tg.OPS["erf"](x), expected, rtol=1e-15, atol=0)
        for dtype, ulps in ((np.float32, 8), (np.float16, 1)):
            found = tg.OPS["erf"](x.astype(dtype))
            assert found.dtype == dtype
            expected = np.array([erf(v) for v in x.astype(dtype).astype(np.float64)])
            np.testing.assert_allclose(
                found, expected, rtol=ulps * float(np.finfo(dtype).eps), atol=1e-7 if dtype == np.float16 else 1e-40
            )

    def test_special_values(self):
        found = tg.OPS["erf"](np.array([0.0, -0.0, np.nan]))
        assert np.signbit(found).tolist() == [False, True, False]
        assert np.isnan(found[2])
        assert isinstance(tg.OPS["erf"](0.5), float)
        assert tg.OPS["erf"](np.zeros((0, 3))).shape == (0, 3)
        assert float(tg.grad(tg.OPS["erf"])(0.0)) == pytest.approx(2 / np.sqrt(np.pi))


class TestActivations:
    @given(st.floats(-8, 8))
    def test_values(self, x):
        a = np.array([x])
        assert functional.elu(a, 0.5)[0] == pytest.approx(x if x > 0 else 0.5 * (exp(x) - 1), abs=1e-12)
        assert functional.gelu(a)[0] == pytest.approx(x * (1 + erf(x / 2**0.5)) / 2, abs=1e-12)
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        assert functional.gelu(a, "tanh")[0] == pytest.approx(x * (1 + np.tanh(inner)) / 2, abs=1e-12)
        assert functional.silu(a)[0] == pytest.approx(x / (1 + exp(-x)), abs=1e-12)

    def test_at_zero_and_far_out(self):
        x = tg.Tensor([0.0, 1000.0, -1000.0], requires_grad=True)
        for f, slope in ((lambda x: functional.elu(x, 0.7), 0.7), (functional.gelu, 0.5), (functional.silu, 0.5)):
            x.zero_grad()
            y = f(x)
            y.sum().backward()
            assert x.grad.tolist() == pytest.approx([slope, 1, 0])
            assert y.tolist() == pytest.approx([0, 1000, -0.7 if slope == 0.7 else 0])

    @pytest.mark.parametrize("layer", [nn.ELU(0.5), nn.GELU(), nn.GELU("tanh"), nn.SiLU()], ids=repr)
    def test_float32_stays(self, layer):
        x = tg.Tensor(np.linspace(-3, 3, 7, dtype=np.float32), requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert y.dtype == x.grad.dtype == np.float32

    def test_unknown_word(self):
        with pytest.raises(ValueError, match="approximate is 'fast': it must be 'none' or 'tanh'"):
            nn.GELU("fast")


def shapes_of(layer: nn.Module) -> list[tuple[int, ...]]:
    return [(6, 3, 4, 5)] if isinstance(layer, nn.BatchNorm2d) else [(6, 3), (6, 3, 5)]


class TestBatchNorm:
    @pytest.mark.parametrize("make", [nn.BatchNorm1d, nn.BatchNorm2d])
    @pytest.mark.parametrize("momentum", [0.1, 1.0, None])
    def test_training_and_eval(self, make, momentum):
        for shape in shapes_of(make(3)):
            layer = make(3, eps=1e-3, momentum=momentum, dtype=np.float64)
            weight, bias = RNG.normal(size=3), RNG.normal(size=3)
            layer.load_state_dict({"weight": weight, "bias": bias}, strict=False)
            axes, wide = (0, *range(2, len(shape))), (1, 3, *(1,) * (len(shape) - 2))
            mean, var = np.zeros(3), np.ones(3)
            for n in range(1, 4):
                x = RNG.normal(2, 3, size=shape)
                batch_mean, batch_var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
                expected = (x - batch_mean) / np.sqrt(batch_var + 1e-3) * weight.reshape(wide) + bias.reshape(wide)
                np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-10, atol=1e-12)
                part = 1 / n if momentum is None else momentum
                mean = (1 - part) * mean + part * batch_mean.ravel()
                var = (1 - part) * var + part * x.var(axes, ddof=1)
                np.testing.assert_allclose(layer.running_mean.numpy(), mean)
                np.testing.assert_allclose(layer.running_var.numpy(), var)
                assert layer.num_batches_tracked.item() == n
            layer.eval()
            before = layer.state_dict()
            expected = (x - mean.reshape(wide)) / np.sqrt(var.reshape(wide) + 1e-3) * weight.reshape(
                wide
            ) + bias.reshape(wide)
            np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(layer(x[:1]).numpy(), expected[:1], rtol=1e-10, atol=1e-12)
            assert_same(list(layer.state_dict().values()), list(before.values()))

    def test_what_there_is(self):
        layer = nn.BatchNorm2d(4)
        assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
        assert [name for name, _ in layer.named_buffers()] == ["running_mean", "running_var", "num_batches_tracked"]
        assert layer.num_batches_tracked.dtype == np.int64
        bare = nn.BatchNorm1d(4, affine=False, track_running_stats=False)
        assert list(bare.state_dict()) == []
        x = RNG.normal(size=(5, 4))
        assert_same([bare.eval()(x)], [bare.train()(x)])
        assert (
            repr(layer) == "BatchNorm2d(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)"
        )

    def test_float32_stays(self):
        layer = nn.BatchNorm1d(3)
        x = tg.Tensor(RNG.normal(size=(4, 3)), np.float32, requires_grad=True)
        for momentum in (0.1, None):
            layer.momentum = momentum
            y = layer(x)
            y.sum().backward()
            kept = [y, x.grad, layer.weight.grad, layer.running_mean, layer.running_var]
            assert {t.dtype for t in kept} == {np.dtype(np.float32)}

    def test_one_value_per_channel(self):
        model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.BatchNorm1d(3))
        with pytest.raises(
            ValueError, match=r"float32\(1, 3\): one value per channel has no variance; .*model\.eval\(\)"
        ) as caught:
            model(np.zeros((1, 2), np.float32))
        assert caught.value.__notes__ == [f"in layer 1: {model[1]!r}"]
        assert model[1].num_batches_tracked.item() == 0
        assert model.eval()(np.zeros((1, 2), np.float32)).shape == (1, 3)

    @pytest.mark.parametrize(
        ("layer", "shape", "wanted"),
        [(nn.BatchNorm1d(3), (4,), r"\(N, C\) or \(N, C, L\)"), (nn.BatchNorm1d(3), (4, 2), "with C = 3 channels on axis 1"),
         (nn.BatchNorm2d(3), (4, 3), r"takes \(N, C, H, W\)"), (nn.LayerNorm((3, 2)), (3, 3), r"last axes have shape \(3, 2\)")],
    )  # fmt: skip
    def test_shapes(self, layer, shape, wanted):
        with pytest.raises(ValueError, match=wanted):
            layer(np.zeros(shape))

    def test_sizes(self):
        for make in (
            lambda: nn.BatchNorm1d(0),
            lambda: nn.LayerNorm(()),
            lambda: nn.Embedding(0, 3),
            lambda: nn.Embedding(3, 0),
        ):
            with pytest.raises(ValueError, match="it needs at least one"):
                make()


class TestLayerNorm:
    @given(st.sampled_from([(5,), (4, 5), (3, 4, 5)]), st.booleans(), st.booleans())
    def test_values(self, normalized, affine, bias):
        layer = nn.LayerNorm(normalized, 1e-3, affine, bias, dtype=np.float64)
        for p in layer.parameters():
            nn.init.normal_(p, rng=0)
        x = RNG.normal(2, 3, size=(2, 3, 4, 5))
        axes = tuple(range(4 - len(normalized), 4))
        expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3)
        if affine:
            expected = expected * layer.weight.numpy() + (layer.bias.numpy() if bias else 0)
        np.testing.assert_allclose(
            layer(x) if isinstance(layer(x), np.ndarray) else layer(x).numpy(), expected, rtol=1e-10, atol=1e-12
        )

    def test_one_number_is_the_last_axis(self):
        assert nn.LayerNorm(4).normalized_shape == (4,)
        assert repr(nn.LayerNorm(4)) == "LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)"


class TestEmbedding:
    def test_values_and_gradients(self):
        layer = nn.Embedding(5, 3, rng=0)
        index = np.array([[1, 4], [1, 1]])
        y = layer(index)
        assert_same([y.numpy()], [layer.weight.numpy()[index]])
        assert y.dtype == np.float32
        y.backward(np.ones(y.shape))
        assert layer.weight.grad.numpy().tolist() == [[n] * 3 for n in (0, 3, 0, 0, 1)]

    def test_padding_is_not_learned(self):
        layer = nn.Embedding(5, 2, padding_idx=-2, rng=0)
        assert layer.padding_idx == 3
        assert layer.weight.numpy()[3].tolist() == [0, 0]
        with tg.no_grad():
            layer.weight[3] = 7
        y = layer([3, 1])
        assert y.numpy()[0].tolist() == [7, 7]
        y.sum().backward()
        assert layer.weight.grad.numpy()[:, 0].tolist() == [0, 1, 0, 0, 0]
        assert repr(layer) == "Embedding(5, 2, padding_idx=3)"

    @pytest.mark.parametrize("bad", [[5], [-1], [[0, 1], [2, 9]]])
    def test_out_of_range(self, bad):
        model = nn.Sequential(nn.Embedding(5, 2, rng=0))
        with pytest.raises(IndexError, match="are no indices of 5 embeddings, integers from 0 to 4: label") as caught:
            model(np.array(bad))
        assert caught.value.__notes__ == ["in layer 0: Embedding(5, 2)"]

    def test_other_mistakes(self):
        with pytest.raises(TypeError, match=r"float64\(1,\) are no indices of 5 embeddings"):
            nn.Embedding(5, 2)(np.array([1.0]))
        with pytest.raises(ValueError, match="padding_idx is 5, but there are 5 indices"):
            nn.Embedding(5, 2, 5)


class TestContainers:
    def test_list(self):
        layers = nn.ModuleList([nn.ReLU(), nn.Tanh()])
        layers.append(nn.Sigmoid()).insert(1, nn.ELU())
        assert [type(m).__name__ for m in layers] == ["ReLU", "ELU", "Tanh", "Sigmoid"]
        assert [name for name, _ in layers.named_children()] == ["0", "1", "2", "3"]
        layers[-1] = nn.SiLU()
        assert isinstance(layers.pop(0), nn.ReLU)
        del layers[1]
        assert [type(m).__name__ for m in layers] == ["ELU", "SiLU"]
        assert len(layers[:1]) == 1
        with pytest.raises(IndexError):
            layers[2]
        with pytest.raises(TypeError, match="'2' must be a Module"):
            layers.append(abs)

    def test_dict(self):
        heads = nn.ModuleDict({"a": nn.Linear(2, 1, rng=0)})
        heads["b"] = nn.ReLU()
        heads.update([("a", nn.Tanh())])
        assert [*heads] == heads.keys() == ["a", "b"]
        assert [type(m).__name__ for m in heads.values()] == ["Tanh", "ReLU"]
        assert isinstance(heads.pop("a"), nn.Tanh)
        assert heads.items() == [("b", heads["b"])]
        assert "a" not in heads
        with pytest.raises(KeyError, match="no module 'a'; there are b"):
            heads["a"]
        with pytest.raises(KeyError, match="'keys' is an attribute"):
            heads["keys"] = nn.ReLU()

    def test_parts_are_found_and_saved(self):
        class Net(nn.Module):
            def __init__(self) -> None:
                self.layers = nn.ModuleList([nn.Linear(2, 2, rng=0), nn.Linear(2, 1, bias=False, rng=1)])
                self.norms = nn.ModuleDict({"first": nn.BatchNorm1d(2)})

        names = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "norms.first.weight", "norms.first.bias"]
        net = Net()
        assert [name for name, _ in net.named_parameters()] == names
        assert [name for name in net.state_dict() if name not in names] == [
            f"norms.first.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
        ]
        assert net.eval().norms["first"].training is False


class TestHooks:
    def test_order_and_changes(self):
        layer, seen = nn.Linear(2, 1, rng=0), []
        x = np.ones((3, 2), np.float32)
        plain = layer(x).numpy()
        first = layer.register_forward_pre_hook(lambda module, inputs: seen.append(("before", inputs[0].shape)))
        double = layer.register_forward_pre_hook(lambda module, inputs: inputs[0] * 2)
        after = layer.register_forward_hook(
            lambda module, inputs, output: seen.append(("after", float(inputs[0][0, 0])))
        )
        negate = layer.register_forward_hook(lambda module, inputs, output: -output)
        np.testing.assert_allclose(layer(x).numpy(), -(2 * plain - layer.bias.numpy()), rtol=1e-6)
        assert seen == [("before", (3, 2)), ("after", 2.0)]
        for hook in (first, double, after, negate, negate):
            hook.remove()
        np.testing.assert_array_equal(layer(x).numpy(), plain)
        assert len(seen) == 2

    def test_within_a_model(self):
        model, norms = nn.Sequential(nn.Linear(2, 2, rng=0), nn.Tanh()), []
        with model[1].register_forward_hook(lambda module, inputs, output: norms.append(float(np.abs(output).max()))):
            y = model(np.ones((1, 2), np.float32))
        assert norms == [float(np.abs(y).max())]
        assert [p.shape for p in model.parameters()] == [(2, 2), (2,)]

    def test_an_error_in_one_names_the_layer(self):
        model = nn.Sequential(nn.ReLU())
        model[0].register_forward_hook(lambda module, inputs, output: 1 / 0)
        with pytest.raises(ZeroDivisionError) as caught:
            model(np.ones(1))
        assert caught.value.__notes__ == ["in layer 0: ReLU()"]
        with pytest.raises(TypeError, match="a hook is a function, not 3"):
            model.register_forward_hook(3)

    def test_a_captured_step_notices(self):
        layer = nn.Linear(2, 1, rng=0)
        step = tg.capture(lambda x: layer(x), backend="numpy")
        x = np.ones((1, 2), np.float32)
        plain = [step(x).numpy() for _ in range(3)][-1]
        hook = layer.register_forward_hook(lambda module, inputs, output: output * 2)
        assert_same([step(x).numpy() for _ in range(3)], [2 * plain] * 3)
        hook.remove()
        assert_same([step(x).numpy()], [plain])


class Training:
    """A model, and a step that a test may capture."""

    def __init__(self, make: Any):
        self.model = make()
        self.optimizer = tg.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, x):
        loss = np.sum(np.square(self.model(x) - 1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def look(self, x):
        return self.model(x)


def normal(*shape: int) -> Any:
    return lambda: RNG.normal(size=shape).astype(np.float32)


MODELS = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), normal(6, 3), True),
    "BatchNorm2d, average": (lambda: nn.BatchNorm2d(3, momentum=None), normal(4, 3, 2, 2), True),
    "LayerNorm": (lambda: nn.LayerNorm((4, 2)), normal(3, 4, 2), True),
    "Embedding": (lambda: nn.Embedding(6, 3, padding_idx=2, rng=0), lambda: RNG.integers(0, 6, (4, 2)), True),
    "activations": (
        lambda: nn.Sequential(nn.PReLU(), nn.ELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU()),
        normal(5, 3),
        True,
    ),
    "a network": (lambda: nn.Sequential(nn.Linear(3, 4, rng=0), nn.BatchNorm1d(4), nn.ReLU()), normal(6, 3), False),
}


RUNS = [pytest.param(name, "numba", marks=needs_numba) for name, (_, _, compiled) in MODELS.items() if compiled]


@pytest.mark.parametrize(("name", "backend"), [*((name, "numpy") for name in MODELS), *RUNS])
def test_captured_is_eager(name, backend):
    make, draw, _ = MODELS[name]
    eager, other = Training(make), Training(make)
    captured, tolerance = (
        tg.capture(other.step, backend=backend, rewrites=False),
        tolerance_for(backend, False, np.float32),
    )
    for n in range(7):
        x = draw()
        assert_same([captured(x).numpy()], [eager.step(x).numpy()], tolerance, f"loss of step {n}")
    assert captured.plan.calls == 5
    assert_same(list(other.model.state_dict().values()), list(eager.model.state_dict().values()), tolerance)
    if backend == "numpy":
        look = tg.capture(other.look, backend=backend, rewrites=False)
        for training in (True, False):
            for part in (eager.model, other.model):
                part.train(training)
            assert_same([look(x).numpy() for _ in range(3)], [eager.model(x).numpy() for _ in range(3)])
        assert_same(list(other.model.state_dict().values()), list(eager.model.state_dict().values()))


def test_an_exported_gelu_runs_with_numpy_alone(tmp_path):
    step = tg.capture(lambda x: functional.gelu(x) + 1, backend="numpy")
    x = RNG.normal(size=(4, 3))
    expected = [step(x).numpy() for _ in range(3)][-1]
    scope: dict[str, Any] = {"__file__": str(tmp_path / "gelu.py")}
    exec(step.export(tmp_path / "gelu.py").read_text(), scope)
    assert_same([scope["step"](x)[0]], [expected])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_captured_embedding_refuses_indices(backend):
    layer = nn.Embedding(4, 2, rng=0)
    step = tg.capture(lambda x: layer(x), backend=backend)
    for _ in range(3):
        step(np.array([0, 3]))
    for bad in ([0, 4], [-1, 0]):
        with pytest.raises(IndexError, match="out of bounds: there are 4 classes"):
            step(np.array(bad))
    assert step.plan.calls


TORCH = [
    ("BatchNorm1d", (3,), {}, (6, 3)),
    ("BatchNorm1d", (3, 1e-3, 0.3), {}, (6, 3, 4)),
    ("BatchNorm1d", (3,), {"momentum": None, "affine": False}, (6, 3)),
    ("BatchNorm1d", (3,), {"track_running_stats": False}, (6, 3)),
    ("BatchNorm2d", (3,), {}, (4, 3, 5, 2)),
    ("BatchNorm2d", (3,), {"bias": False}, (4, 3, 5, 2)),
    ("LayerNorm", (4,), {}, (2, 3, 4)),
    ("LayerNorm", ((3, 4),), {"bias": False}, (2, 3, 4)),
    ("LayerNorm", ([3, 4],), {"elementwise_affine": False, "eps": 1e-2}, (2, 3, 4)),
    ("ELU", (), {}, (5, 4)),
    ("ELU", (0.4,), {}, (5, 4)),
    ("GELU", (), {}, (5, 4)),
    ("GELU", ("tanh",), {}, (5, 4)),
    ("SiLU", (), {}, (5, 4)),
]
CLOSE = {"rtol": 1e-10, "atol": 1e-11}


class TestTorch:
    @pytest.mark.parametrize(("name", "arguments", "options", "shape"), TORCH, ids=str)
    def test_layers(self, name, arguments, options, shape, torch):
        kind = {"dtype": np.float64} if "Norm" in name else {}
        ours, theirs = (
            getattr(nn, name)(*arguments, **options, **kind),
            getattr(torch.nn, name)(*arguments, **options).double(),
        )
        for p in ours.parameters():
            nn.init.normal_(p, rng=0)
        theirs.load_state_dict({key: torch.tensor(array) for key, array in ours.state_dict().items()})
        for training in (True, True, False):
            ours.train(training)
            theirs.train(training)
            data, g = RNG.normal(1, 2, size=shape), RNG.normal(size=shape)
            x, t = tg.Tensor(data, requires_grad=True), torch.tensor(data, requires_grad=True)
            y, u = ours(x), theirs(t)
            np.testing.assert_allclose(y.numpy(), u.detach().numpy(), **CLOSE)
            y.backward(g)
            u.backward(torch.from_numpy(g))
            np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), **CLOSE)
            for (key, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
                assert key == other
                np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), **CLOSE)
        mine, its = ours.state_dict(), theirs.state_dict()
        assert list(mine) == list(its)
        for key, array in mine.items():
            np.testing.assert_allclose(array, its[key].numpy(), **CLOSE)
        assert ours.load_state_dict(its) == ([], [])
        assert repr(ours) == repr(theirs)

    @pytest.mark.parametrize("padding", [None, 1, -1])
    def test_embedding(self, padding, torch):
        ours, theirs = nn.Embedding(5, 3, padding, dtype=np.float64, rng=0), torch.nn.Embedding(5, 3, padding).double()
        theirs.load_state_dict({key: torch.tensor(array) for key, array in ours.state_dict().items()})
        index, g = RNG.integers(0, 5, (4, 6)), RNG.normal(size=(4, 6, 3))
        y, u = ours(index), theirs(torch.tensor(index))
        np.testing.assert_array_equal(y.numpy(), u.detach().numpy())
        y.backward(g)
        u.backward(torch.tensor(g))
        np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), **CLOSE)
        assert repr(ours) == repr(theirs)

    def test_a_whole_model_moves_both_ways(self, torch):

        def make(kit: Any) -> Any:
            return kit.Sequential(
                kit.Embedding(7, 4), kit.LayerNorm(4), kit.GELU(), kit.Flatten(), kit.Linear(8, 3), kit.BatchNorm1d(3)
            )

        ours, theirs = make(nn), make(torch.nn)
        index = RNG.integers(0, 7, (5, 2))
        for training in (True, False):
            ours.train(training)
            theirs.train(training)
            ours.load_state_dict(theirs.state_dict())
            np.testing.assert_allclose(
                ours(index).numpy(), theirs(torch.tensor(index)).detach().numpy(), rtol=1e-4, atol=1e-5
            )
        theirs.load_state_dict({key: torch.tensor(array) for key, array in ours.state_dict().items()})
