"""Modules: what they register, save, load and say; layers against closed forms in NumPy; initialisers."""

import copy
import pickle
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.context import changes


class Scale(nn.Module):
    """A parameter, a buffer that is saved and one that is not."""

    def __init__(self, n: int = 3) -> None:
        self.factor = nn.Parameter(np.ones(n, np.float32))
        self.register_buffer("count", tg.Tensor(np.zeros(1)))
        self.register_buffer("scratch", tg.Tensor(np.zeros(1)), persistent=False)

    def forward(self, x: Any) -> Any:
        return x * self.factor


class Net(nn.Module):
    """Parts within parts; deliberately without super().__init__()."""

    def __init__(self) -> None:
        self.net = nn.Sequential(nn.Linear(4, 3, rng=0), nn.Tanh(), nn.Linear(3, 3, rng=1))
        self.scale = Scale()

    def forward(self, x: Any) -> Any:
        return self.scale(self.net(x))


NAMES = ["net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias", "scale.factor"]


class TestRegister:
    def test_parameters_are_found_by_assignment_in_order(self):
        assert [name for name, _ in Net().named_parameters()] == NAMES
        assert [p.shape for p in Net().parameters()] == [(3, 4), (3,), (3, 3), (3,), (3,)]

    def test_prefix_and_recurse(self):
        net = Net()
        assert [name for name, _ in net.named_parameters(prefix="a")] == [f"a.{name}" for name in NAMES]
        assert list(net.parameters(recurse=False)) == []
        assert [name for name, _ in net.scale.named_parameters(recurse=False)] == ["factor"]

    def test_a_shared_parameter_is_listed_once_and_saved_under_both_names(self):
        net = nn.Sequential(nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1))
        net[1].weight = net[0].weight
        assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
        assert len(list(net.named_parameters(remove_duplicate=False))) == 4
        assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]

    def test_a_shared_module_is_listed_once(self):
        layer = nn.Linear(2, 2)
        net = nn.Sequential(layer, nn.ReLU(), layer)
        assert [name for name, _ in net.named_modules()] == ["", "0", "1"]
        assert [name for name, _ in net.named_children()] == ["0", "1"]
        assert len(list(net.parameters())) == 2
        assert len(net) == 3

    def test_modules_and_children(self):
        net = Net()
        assert [name for name, _ in net.named_modules()] == ["", "net", "net.0", "net.1", "net.2", "scale"]
        assert list(net.children()) == [net.net, net.scale]
        assert next(net.modules()) is net

    def test_buffers(self):
        net = Net()
        assert [name for name, _ in net.named_buffers()] == ["scale.count", "scale.scratch"]
        assert len(list(net.buffers(recurse=False))) == 0
        net.scale.count = tg.Tensor(np.ones(1))
        assert net.state_dict()["scale.count"] == 1

    def test_replacing_and_removing(self):
        net = Net()
        net.net = nn.Linear(4, 3, bias=False)
        assert [name for name, _ in net.named_parameters()] == ["net.weight", "scale.factor"]
        net.scale.factor = None
        assert [name for name, _ in net.named_parameters()] == ["net.weight"]
        del net.net
        assert list(net.parameters()) == []

    @pytest.mark.parametrize(
        ("name", "value", "kind"),
        [("factor", np.ones(3), "Parameter"), ("factor", tg.Tensor([1.0]), "Parameter"), ("count", 3.0, "Tensor")],
    )
    def test_losing_what_is_registered_is_refused(self, name, value, kind):
        with pytest.raises(TypeError, match=rf"Scale.{name} is a {kind}.*lost to training.*no_grad\(\)"):
            setattr(Scale(), name, value)

    def test_losing_a_module_is_refused(self):
        with pytest.raises(TypeError, match=r"Net\.net is a Module, function is not"):
            Net().net = lambda x: x

    def test_names_and_kinds_are_checked(self):
        module = nn.Module()
        for name in ("", "a.b", 3):
            with pytest.raises(ValueError, match="cannot be the name of a part"):
                module.add_module(name, nn.ReLU())
        with pytest.raises(TypeError, match=r"'w' must be a Parameter or None, not float64\(2,\)"):
            module.register_parameter("w", np.ones(2))
        with pytest.raises(TypeError, match="'b' must be a Tensor or None"):
            module.register_buffer("b", np.ones(2))
        with pytest.raises(TypeError, match="'0' must be a Module or None, not builtin_function_or_method"):
            nn.Sequential(abs)
        module.register_parameter("w", None)
        module.register_parameter("w", nn.Parameter([1.0]))
        assert [name for name, _ in module.named_parameters()] == ["w"]

    def test_parameter(self):
        array = np.ones(2, np.float32)
        p = nn.Parameter(array)
        array[0] = 5
        assert p.requires_grad
        assert isinstance(p, tg.Tensor)
        assert (p.dtype, p.tolist()) == (np.float32, [1, 1])
        assert repr(p) == "Parameter([1., 1.], dtype=float32, requires_grad=True)"
        assert not nn.Parameter([1], requires_grad=False).requires_grad
        with pytest.raises(TypeError, match="only floating-point"):
            nn.Parameter([1])


trees = st.recursive(
    st.sampled_from(["linear", "scale", "relu"]), lambda part: st.lists(part, min_size=1, max_size=3), max_leaves=6
)


class TestState:
    def test_state_dict_is_copies(self):
        net = Net()
        state = net.state_dict()
        assert list(state) == [*NAMES, "scale.count"]
        state["net.0.bias"][:] = 9
        assert not (net.net[0].bias.numpy() == 9).any()

    def test_round_trip(self):
        source, target = Net(), Net()
        for p in source.parameters():
            nn.init.normal_(p, rng=3)
        arrays = [p._data for p in target.parameters()]
        assert target.load_state_dict(source.state_dict()) == ([], [])
        for (name, array), p, held in zip(source.state_dict().items(), target.parameters(), arrays, strict=False):
            np.testing.assert_array_equal(target.state_dict()[name], array)
            assert p._data is held  # a captured step holds on to the arrays

    def test_the_dtype_is_kept_and_tensors_and_lists_are_taken(self):
        layer = nn.Linear(2, 1)
        layer.load_state_dict({"weight": np.array([[1, 2]]), "bias": tg.Tensor([0.5], requires_grad=True)})
        assert (layer.weight.dtype, layer.bias.dtype) == (np.float32, np.float32)
        assert layer.weight.tolist() == [[1, 2]]
        layer.load_state_dict({"weight": [[3.0, 4.0]]}, strict=False)
        assert layer.weight.tolist() == [[3, 4]]

    def test_all_problems_are_listed_and_nothing_is_loaded(self):
        net = Net()
        before = net.state_dict()
        state = {name: array + 1 for name, array in before.items()}
        del state["net.0.bias"]
        state["net.0.weight"] = np.zeros((4, 3))
        state["scale.count"] = np.array(["x"])
        state["head.weight"] = np.zeros(2)
        with pytest.raises(RuntimeError) as caught:
            net.load_state_dict(state)
        text = str(caught.value)
        assert "Error(s) in loading state_dict for Net, nothing was loaded" in text
        assert "Missing key(s) in state_dict: 'net.0.bias'." in text
        assert "Unexpected key(s) in state_dict: 'head.weight'." in text
        assert "size mismatch for net.0.weight: (4, 3) in the state_dict, (3, 4) in the model" in text
        assert "scale.count is no array that fits float64(1,)" in text
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(array, before[name])

    def test_not_strict(self):
        layer = nn.Linear(2, 1)
        found = layer.load_state_dict({"bias": np.ones(1), "other": np.ones(3)}, strict=False)
        assert found == (["weight"], ["other"])
        assert layer.bias.tolist() == [1]
        with pytest.raises(RuntimeError, match="size mismatch for bias"):
            layer.load_state_dict({"bias": np.ones(2)}, strict=False)

    @pytest.mark.parametrize("value", [np.ones(1, complex), np.array([None]), "text", {}, [[1.0], [1.0, 2.0]]])
    def test_values_that_are_no_numbers(self, value):
        with pytest.raises(RuntimeError, match="bias is no array that fits"):
            nn.Linear(2, 1).load_state_dict({"bias": value}, strict=False)

    def test_integers_do_not_take_fractions(self):
        module = nn.Module()
        module.register_buffer("steps", tg.Tensor([1]))
        with pytest.raises(RuntimeError, match="steps is no array that fits int64"):
            module.load_state_dict({"steps": np.array([1.5])})

    def test_something_else_than_a_dict(self):
        with pytest.raises(TypeError, match="takes a dict of name: array, not list"):
            nn.Linear(2, 1).load_state_dict([np.ones(2)])

    def test_read_only_values_are_replaced(self):
        layer = nn.Linear(2, 1)
        fixed = np.zeros(1, np.float32)
        fixed.flags.writeable = False
        layer.bias.data = fixed
        layer.load_state_dict({"bias": np.ones(1)}, strict=False)
        assert (layer.bias.tolist(), fixed.tolist()) == ([1], [0])

    def test_loading_between_forward_and_backward_is_noticed(self):
        layer = nn.Linear(2, 2, rng=0)
        x = tg.Tensor(np.ones((1, 2), np.float32), requires_grad=True)
        loss = layer(x).sum()
        layer.load_state_dict(layer.state_dict())
        with pytest.raises(RuntimeError, match="changed in place"):
            loss.backward()

    def test_copies_and_pickles(self):
        net = Net()
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            x = np.ones((2, 4), np.float32)
            np.testing.assert_array_equal(twin(x).numpy(), net(x).numpy())
            assert not {id(p) for p in twin.parameters()} & {id(p) for p in net.parameters()}
            assert all(isinstance(p, nn.Parameter) for p in twin.parameters())

    @given(trees)
    def test_any_nest_of_modules_round_trips(self, tree):
        def build(tree: Any, seed: int) -> nn.Module:
            if isinstance(tree, list):
                return nn.Sequential(*(build(part, seed + i) for i, part in enumerate(tree)))
            return {"linear": nn.Linear(3, 3, rng=seed), "scale": Scale(), "relu": nn.ReLU()}[tree]

        one, other = build(tree, 0), build(tree, 10)
        assert other.load_state_dict(one.state_dict()) == ([], [])
        x = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(np.asarray(one(tg.Tensor(x)).numpy()), other(tg.Tensor(x)).numpy())
        assert [name for name, _ in one.named_parameters()] == [n for n in one.state_dict() if "count" not in n]


class TestModes:
    def test_train_and_eval(self):
        net = Net()
        assert all(m.training for m in net.modules())
        assert net.eval() is net
        assert not any(m.training for m in net.modules())
        assert all(m.training for m in net.train().modules())

    @pytest.mark.parametrize(
        "change",
        [
            lambda net: net.eval(),
            lambda net: setattr(net, "new", 3),
            lambda net: setattr(net.net[0], "weight", nn.Parameter(np.zeros((3, 4), np.float32))),
            lambda net: setattr(net.net[0].weight, "data", np.zeros((3, 4), np.float32)),
            lambda net: net.net[0].weight.requires_grad_(False),
            lambda net: setattr(net.net[0].weight, "requires_grad", False),
            lambda net: delattr(net, "net"),
            lambda net: net.register_forward_hook(lambda *_: None),
            lambda net: setattr(net, "forward", abs),
        ],
    )
    def test_captured_steps_can_tell_that_something_changed(self, change):
        net = Net()
        version = changes.version
        net.train()
        net.state_dict(), net(np.ones((2, 4), np.float32))
        net.net[0].weight.requires_grad_(True)
        assert changes.version == version
        change(net)
        assert changes.version > version

    def test_zero_grad(self):
        net = Net()
        net(np.ones((2, 4), np.float32)).sum().backward()
        assert all(p.grad is not None for p in net.parameters())
        net.zero_grad()
        assert all(p.grad is None for p in net.parameters())

    def test_apply_visits_parts_first(self):
        seen: list[str] = []
        net = Net()
        assert net.apply(lambda m: seen.append(type(m).__name__)) is net
        assert seen == ["Linear", "Tanh", "Linear", "Sequential", "Scale", "Net"]

    def test_repr_is_a_tree(self):
        assert repr(Net()).split("\n") == [
            "Net(",
            "  (net): Sequential(",
            "    (0): Linear(in_features=4, out_features=3, bias=True)",
            "    (1): Tanh()",
            "    (2): Linear(in_features=3, out_features=3, bias=True)",
            "  )",
            "  (scale): Scale()",
            ")",
        ]

    def test_repr_shows_settings_above_parts(self):
        class Wrapper(nn.Module):
            def __init__(self) -> None:
                self.inner = nn.LeakyReLU(0.2)

            def extra_repr(self) -> str:
                return "gain=3"

        assert repr(Wrapper()) == "Wrapper(\n  gain=3\n  (inner): LeakyReLU(negative_slope=0.2)\n)"


class TestErrors:
    """An exception from within a model says in which layer it arose."""

    @staticmethod
    def notes(call: Any, kind: type[Exception] = ValueError) -> list[str]:
        with pytest.raises(kind) as caught:
            call()
        return caught.value.__notes__

    def test_path_from_the_outermost_module(self):
        net = Net()
        setattr(net.net, "2", nn.Linear(5, 3, rng=0))
        notes = self.notes(lambda: net(np.ones((2, 4), np.float32)))
        assert notes[0] == "in affine(float32(2, 3), float32(3, 5), float32(3,))"
        assert "takes 5 features" in notes[1]
        assert notes[2:] == ["in layer net.2: Linear(in_features=5, out_features=3, bias=True)"]

    def test_a_module_alone_and_one_with_parts(self):
        assert self.notes(lambda: nn.Linear(2, 1)(np.ones((1, 3))))[-1] == (
            "in layer Linear(in_features=2, out_features=1, bias=True)"
        )

        class Broken(nn.Module):
            def __init__(self) -> None:
                self.part = nn.ReLU()

            def forward(self, x: Any) -> Any:
                raise KeyError("x")

        outer = nn.Sequential(nn.Sequential(Broken()))
        assert self.notes(lambda: outer(1), KeyError) == ["in layer 0.0: Broken"]

    def test_a_module_that_is_not_registered_is_named_by_its_type(self):
        class Hidden(nn.Module):
            def __init__(self) -> None:
                self.layers = [nn.Linear(2, 1)]

            def forward(self, x: Any) -> Any:
                return self.layers[0](x)

        outer = nn.Sequential(Hidden())
        assert self.notes(lambda: outer(np.ones((1, 3))))[-1].startswith("in layer 0.Linear: Linear(in_features=2")

    def test_notes_added_on_the_way_stay(self):
        class Wrapper(nn.Module):
            def __init__(self) -> None:
                self.inner = nn.Linear(2, 1)

            def forward(self, x: Any) -> Any:
                try:
                    return self.inner(x)
                except ValueError as error:
                    error.add_note("seen by the wrapper")
                    raise

        notes = self.notes(lambda: nn.Sequential(Wrapper())(np.ones((1, 3))))
        assert notes[-2].startswith("in layer 0.inner: Linear")
        assert notes[-1] == "seen by the wrapper"

    def test_the_error_can_be_pickled_without_the_model(self):
        model = nn.Sequential(nn.Linear(2, 1))
        model.note = lambda: None  # cannot be pickled
        with pytest.raises(ValueError, match="mismatch") as caught:
            model(np.ones((1, 3)))
        assert pickle.loads(pickle.dumps(caught.value)).__notes__ == caught.value.__notes__

    def test_a_module_that_calls_itself_and_one_too_broken_to_be_shown(self):
        class Recursive(nn.Module):
            def extra_repr(self) -> str:
                raise AttributeError("never set")

            def forward(self, depth: int) -> Any:
                return self(depth - 1) if depth else 1 / 0

        assert self.notes(lambda: nn.Sequential(Recursive())(3), ZeroDivisionError) == ["in layer 0: Recursive"]

    def test_no_forward(self):
        class Empty(nn.Module):
            pass

        with pytest.raises(NotImplementedError, match=r"Empty computes nothing yet: define forward\(self, x\)"):
            Empty()(1)


shapes = st.lists(st.integers(1, 3), max_size=2).map(tuple)


class TestLinear:
    @given(shapes, st.integers(1, 4), st.integers(1, 4), st.booleans(), st.sampled_from([np.float32, np.float64]))
    def test_value_and_gradients(self, batch, inputs, outputs, bias, dtype):
        rng = np.random.default_rng(0)
        layer = nn.Linear(inputs, outputs, bias, dtype=dtype, rng=rng)
        x = tg.Tensor(rng.normal(size=(*batch, inputs)), dtype, requires_grad=True)
        g = rng.normal(size=(*batch, outputs)).astype(dtype)
        y = layer(x)
        y.backward(g)
        tolerance = {"rtol": 1e-5 if dtype == np.float32 else 1e-12, "atol": 1e-5 if dtype == np.float32 else 1e-12}
        weight, rows, columns = layer.weight.numpy(), x.numpy().reshape(-1, inputs), g.reshape(-1, outputs)
        expected = np.einsum("...i,oi->...o", x.numpy(), weight) + (layer.bias.numpy() if bias else 0)
        np.testing.assert_allclose(y.numpy(), expected, **tolerance)
        np.testing.assert_allclose(layer.weight.grad.numpy(), np.einsum("no,ni->oi", columns, rows), **tolerance)
        np.testing.assert_allclose(x.grad.numpy(), np.einsum("...o,oi->...i", g, weight), **tolerance)
        assert {y.dtype, layer.weight.grad.dtype, x.grad.dtype} == {np.dtype(dtype)}
        if bias:
            np.testing.assert_allclose(layer.bias.grad.numpy(), columns.sum(axis=0), **tolerance)

    def test_initial_values(self):
        layer = nn.Linear(400, 300, rng=0)
        for p in layer.parameters():
            assert p.dtype == np.float32
            assert 0.9 / 20 < np.abs(p.numpy()).max() <= 1 / 20 + 1e-9
        assert layer.weight.numpy().std() == pytest.approx(1 / 20 / sqrt(3), rel=0.01)

    def test_rng(self):
        def values(rng: Any) -> Any:
            return nn.Linear(3, 2, rng=rng).weight.numpy()

        np.testing.assert_array_equal(values(7), values(7))
        np.testing.assert_array_equal(values(7), values(np.random.default_rng(7)))
        assert not np.array_equal(values(7), values(8))
        assert not np.array_equal(values(None), values(None))
        stream = np.random.default_rng(7)
        assert not np.array_equal(values(stream), values(stream))

    def test_without_bias(self):
        layer = nn.Linear(3, 2, bias=False, rng=0)
        assert layer.bias is None
        assert list(layer.state_dict()) == ["weight"]
        assert "bias=False" in repr(layer)

    @pytest.mark.parametrize("sizes", [(0, 2), (2, 0), (-1, 2)])
    def test_sizes(self, sizes):
        with pytest.raises(ValueError, match="at least one input and one output"):
            nn.Linear(*sizes)

    def test_integer_parameters_are_refused(self):
        with pytest.raises(TypeError, match="only floating-point"):
            nn.Linear(2, 2, dtype=np.int64)


class TestSequential:
    def test_is_its_layers(self):
        first, second = nn.Linear(3, 4, rng=0), nn.Linear(4, 2, rng=1)
        net = nn.Sequential(first, nn.ReLU(), second)
        x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
        hidden = np.maximum(x @ first.weight.numpy().T + first.bias.numpy(), 0)
        np.testing.assert_allclose(net(x).numpy(), hidden @ second.weight.numpy().T + second.bias.numpy(), rtol=1e-5)
        assert (list(net), len(net), net[-1]) == ([first, net[1], second], 3, second)
        np.testing.assert_array_equal(net[:2](x).numpy(), nn.Sequential(first, net[1])(x).numpy())

    def test_empty_and_named(self):
        assert nn.Sequential()(3) == 3
        net = nn.Sequential({"in": nn.Linear(2, 2), "out": nn.Tanh()})
        assert list(net.state_dict()) == ["in.weight", "in.bias"]


ACTIVATIONS: list[tuple[nn.Module, Any]] = [
    (nn.Identity(), lambda x: x),
    (nn.ReLU(), lambda x: np.where(x > 0, x, 0)),
    (nn.LeakyReLU(), lambda x: np.where(x > 0, x, 0.01 * x)),
    (nn.LeakyReLU(0.3), lambda x: np.where(x > 0, x, 0.3 * x)),
    (nn.PReLU(dtype=np.float64), lambda x: np.where(x > 0, x, 0.25 * x)),
    (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    (nn.Tanh(), np.tanh),
    (nn.Softplus(), lambda x: np.log(1 + np.exp(x))),
    (nn.Softplus(2.0), lambda x: np.log(1 + np.exp(2 * x)) / 2),
    (nn.Softmax(), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    (nn.Softmax(dim=0), lambda x: np.exp(x) / np.exp(x).sum(0, keepdims=True)),
    (nn.LogSoftmax(dim=1), lambda x: x - np.log(np.exp(x).sum(1, keepdims=True))),
    (nn.Flatten(), lambda x: x.reshape(2, 12)),
    (nn.Flatten(0, 1), lambda x: x.reshape(6, 4)),
]


class TestActivations:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))

    @pytest.mark.parametrize(("module", "formula"), ACTIVATIONS, ids=[repr(module) for module, _ in ACTIVATIONS])
    def test_value_and_gradient(self, module, formula):
        x = tg.Tensor(self.x, requires_grad=True)
        y = module(x)
        np.testing.assert_allclose(y.numpy(), formula(self.x), rtol=1e-12)
        weights, step = np.random.default_rng(1).normal(size=y.shape), np.random.default_rng(2).normal(size=x.shape)
        y.backward(weights)
        slope = np.sum((formula(self.x + 1e-6 * step) - formula(self.x - 1e-6 * step)) * weights) / 2e-6
        assert np.sum(x.grad.numpy() * step) == pytest.approx(slope, rel=1e-6)

    @pytest.mark.parametrize("module", [m for m, _ in ACTIVATIONS if not list(m.parameters())], ids=repr)
    def test_float32_stays(self, module):
        x = tg.Tensor(self.x, np.float32, requires_grad=True)
        y = module(x)
        y.backward(np.ones(y.shape, np.float32))
        assert (y.dtype, x.grad.dtype) == (np.float32, np.float32)

    def test_arrays_give_arrays(self):
        assert type(nn.Tanh()(self.x)) is np.ndarray

    def test_prelu_learns_its_slope(self):
        module = nn.PReLU()
        module(tg.Tensor(self.x, np.float32)).sum().backward()
        assert module.weight.grad.dtype == np.float32
        np.testing.assert_allclose(module.weight.grad.numpy(), [np.minimum(self.x, 0).sum()], rtol=1e-5)

    def test_prelu_by_channel(self):
        module = nn.PReLU(3, init=0.5, dtype=np.float64)
        module(tg.Tensor(self.x)).sum().backward()
        np.testing.assert_allclose(module.weight.grad.numpy(), np.minimum(self.x, 0).sum(axis=(0, 2)))
        assert module(self.x[:, :, 0]).shape == (2, 3)

    def test_flatten_refuses_a_reversed_range(self):
        with pytest.raises(ValueError, match=r"start_dim 2 comes after end_dim 1 in shape \(2, 3, 4\)"):
            nn.Flatten(2, 1)(self.x)


class TestInit:
    @staticmethod
    def weight(*shape: int) -> nn.Parameter:
        return nn.Parameter(np.zeros(shape or (300, 200)), np.float32)

    @pytest.mark.parametrize(
        ("fill", "low", "high", "std"),
        [
            (lambda w: nn.init.uniform_(w, -2, 4, rng=0), -2, 4, sqrt(3)),
            (lambda w: nn.init.normal_(w, 1, 0.5, rng=0), None, None, 0.5),
            (lambda w: nn.init.xavier_uniform_(w, rng=0), -sqrt(6 / 500), sqrt(6 / 500), sqrt(2 / 500)),
            (lambda w: nn.init.xavier_uniform_(w, 2, rng=0), None, None, 2 * sqrt(2 / 500)),
            (lambda w: nn.init.xavier_normal_(w, rng=0), None, None, sqrt(2 / 500)),
            (lambda w: nn.init.kaiming_normal_(w, rng=0), None, None, sqrt(2 / 200)),
            (lambda w: nn.init.kaiming_normal_(w, mode="fan_out", rng=0), None, None, sqrt(2 / 300)),
            (lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu", rng=0), -sqrt(0.03), sqrt(0.03), sqrt(0.01)),
            (lambda w: nn.init.kaiming_uniform_(w, a=sqrt(5), rng=0), -sqrt(1 / 200), sqrt(1 / 200), None),
        ],
    )
    def test_range_and_spread(self, fill, low, high, std):
        w = self.weight()
        assert fill(w) is w
        values = w.numpy()
        assert (w.dtype, w.requires_grad) == (np.float32, True)
        if low is not None:
            assert low <= values.min() < low + 0.001 * (high - low)
            assert high - 0.001 * (high - low) < values.max() <= high * (1 + 1e-6)
        if std is not None:
            assert values.std() == pytest.approx(std, rel=0.01)
        np.testing.assert_array_equal(fill(self.weight()).numpy(), values)

    def test_constants(self):
        w = self.weight(2, 2)
        assert nn.init.ones_(w).tolist() == [[1, 1], [1, 1]]
        assert nn.init.constant_(w, 0.5).tolist() == [[0.5, 0.5], [0.5, 0.5]]
        assert nn.init.zeros_(w).tolist() == [[0, 0], [0, 0]]

    def test_fans_of_a_kernel(self):
        assert nn.init.fans(self.weight(8, 3, 5, 5)) == (75, 200)

    def test_gains(self):
        gains = [nn.init.calculate_gain(name) for name in ("linear", "sigmoid", "tanh", "relu")]
        assert gains == pytest.approx([1, 1, 5 / 3, sqrt(2)])
        assert nn.init.calculate_gain("leaky_relu", 0.2) == pytest.approx(sqrt(2 / 1.04))
        assert nn.init.calculate_gain("leaky_relu") == pytest.approx(sqrt(2 / 1.0001))

    def test_errors(self):
        with pytest.raises(ValueError, match=r"two axes or more .*this Tensor has shape \(3,\); use normal_"):
            nn.init.xavier_uniform_(self.weight(3))
        with pytest.raises(ValueError, match="avg is not a valid mode; use fan_in or fan_out"):
            nn.init.kaiming_normal_(self.weight(), mode="avg")
        with pytest.raises(ValueError, match="swish is not a known nonlinearity; use leaky_relu, linear"):
            nn.init.kaiming_normal_(self.weight(), nonlinearity="swish")
        computed = self.weight(2) * 2
        with pytest.raises(RuntimeError, match="has a graph"):
            nn.init.zeros_(computed)

    def test_a_graph_that_used_the_old_values_notices(self):
        w = nn.Parameter([1.0, 2.0])
        loss = (w * w).sum()
        nn.init.zeros_(w)
        with pytest.raises(RuntimeError, match="changed in place"):
            loss.backward()
