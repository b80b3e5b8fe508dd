"""SGD against its formulas written out in NumPy; groups, state, what it refuses, and what a captured step would see."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.context import listening
from tinygrad_scratch.optim import SGD

OPTIONS: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.01},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.4},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "momentum": 0.8, "dampening": 0.1, "weight_decay": 0.05},
    {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def reference(p: Any, gradients: list[Any], lr: float, **options: Any) -> list[Any]:
    """The parameter after each gradient, as the documentation of torch.optim.SGD has it."""
    momentum, dampening = options.get("momentum", 0), options.get("dampening", 0)
    velocity, path = None, []
    for g in gradients:
        g = g + options.get("weight_decay", 0) * p
        if momentum:
            velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
            g = g + momentum * velocity if options.get("nesterov") else velocity
        p = p - lr * g
        path.append(p)
    return path


def leaf(values: Any, dtype: Any = np.float64) -> tg.Tensor:
    return tg.Tensor(values, dtype, requires_grad=True)


def quadratic(p: tg.Tensor, centre: float = 1.0) -> None:
    """Put the gradient of 1/2 |p - centre|^2 into p."""
    p.zero_grad()
    ((p - centre) ** 2 * 0.5).sum().backward()


class TestFormulas:
    @each_option
    def test_every_step(self, options):
        rng = np.random.default_rng(0)
        start, gradients = rng.normal(size=(3, 2)), list(rng.normal(size=(6, 3, 2)))
        p = leaf(start)
        optimizer = SGD([p], **options)
        for g, expected in zip(gradients, reference(start, gradients, **options), strict=True):
            p.grad = tg.Tensor(g)
            optimizer.step()
            np.testing.assert_allclose(p.numpy(), expected, rtol=1e-12)
            np.testing.assert_array_equal(p.grad.numpy(), g)

    @given(
        st.floats(0, 1), st.floats(0, 0.99), st.floats(0, 1), st.floats(0, 1), st.booleans(), st.integers(1, 5),
    )  # fmt: skip
    def test_any_options(self, lr, momentum, dampening, weight_decay, nesterov, steps):
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        if nesterov and momentum:
            options |= {"nesterov": True, "dampening": 0.0}
        gradients = list(np.random.default_rng(steps).normal(size=(steps, 2)))
        p = leaf([1.0, -2.0])
        optimizer = SGD([p], **options)
        for g in gradients:
            p.grad = tg.Tensor(g)
            optimizer.step()
        np.testing.assert_allclose(p.numpy(), reference(np.array([1.0, -2.0]), gradients, **options)[-1], rtol=1e-9)

    @each_option
    def test_float32_stays(self, options):
        def train(number: Any) -> tg.Tensor:
            p = leaf(np.random.default_rng(0).normal(size=50), np.float32)
            optimizer = SGD([p], **{**options, "lr": number(0.1)})
            for lr in (0.2, 0.3, 0.17):
                quadratic(p)
                optimizer.param_groups[0]["lr"] = number(lr)
                optimizer.step()
            assert p.dtype == np.float32
            assert all(array.dtype == np.float32 for array in optimizer.state.get(p, {}).values())
            return p

        # np.float64 is what a schedule written in NumPy gives; it must not make the arithmetic double
        np.testing.assert_array_equal(train(float).numpy(), train(np.float64).numpy())

    def test_the_array_stays_where_it_is_and_the_graph_notices(self):
        p = leaf([1.0, 2.0])
        array = p._data
        quadratic(p)
        loss = (p * p).sum()
        SGD([p], lr=0.1).step()
        assert p._data is array
        with pytest.raises(RuntimeError, match="changed in place"):
            loss.backward()

    def test_parameters_without_a_gradient_are_left_alone(self):
        p, q = leaf([1.0]), leaf([1.0])
        optimizer = SGD([p, q], lr=0.1, momentum=0.9, weight_decay=0.5)
        quadratic(p, centre=0)
        optimizer.step()
        assert q.tolist() == [1]
        assert list(optimizer.state) == [p]
        optimizer.zero_grad()
        before = p.tolist()
        optimizer.step()
        assert p.grad is None
        assert p.tolist() == before

    def test_training_goes_downhill(self):
        rng = np.random.default_rng(0)
        model = nn.Sequential(nn.Linear(2, 8, rng=rng), nn.Tanh(), nn.Linear(8, 2, rng=rng))
        x = rng.normal(size=(64, 2)).astype(np.float32)
        y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
        optimizer = SGD(model.parameters(), lr=0.5, momentum=0.9)
        losses = []
        for _ in range(150):
            optimizer.zero_grad()
            loss = tg.softmax_cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.1 < 0.5 < losses[0]

    def test_momentum_may_be_switched_on_later(self):
        p = leaf([1.0])
        optimizer = SGD([p], lr=0.1)
        quadratic(p)
        optimizer.step()
        optimizer.param_groups[0]["momentum"] = 0.9
        p.grad = tg.Tensor([1.0])
        optimizer.step()
        assert optimizer.state[p]["momentum_buffer"].tolist() == [1.0]


class TestGroups:
    def test_options_of_their_own(self):
        p, q, r = leaf([1.0]), leaf([1.0]), leaf([1.0])
        optimizer = SGD([{"params": [p]}, {"params": q, "lr": 0.5}], lr=0.1, momentum=0.9)
        optimizer.add_param_group({"params": (x for x in [r]), "lr": 1, "momentum": 0})
        for x in (p, q, r):
            x.grad = tg.Tensor([1.0])
        optimizer.step()
        assert [x.item() for x in (p, q, r)] == pytest.approx([0.9, 0.5, 0.0])
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5, 1.0]
        assert r not in optimizer.state

    def test_named_parameters(self):
        layer = nn.Linear(2, 2, rng=0)
        optimizer = SGD(layer.named_parameters(), lr=0.1)
        assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
        assert optimizer.param_groups[0]["params"] == [layer.weight, layer.bias]

    def test_the_learning_rate_may_change_between_steps(self):
        p = leaf([1.0])
        optimizer = SGD([p], lr=0.1)
        p.grad = tg.Tensor([1.0])
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.4
        optimizer.step()
        assert p.item() == pytest.approx(0.5)

    def test_repr(self):
        text = "SGD(lr=0.1, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False)"
        assert repr(SGD([leaf([1.0])], lr=0.1)) == text


class TestState:
    @staticmethod
    def trained(steps: int = 3) -> tuple[list[tg.Tensor], SGD]:
        params = [leaf([1.0, 2.0]), leaf([3.0], np.float32)]
        optimizer = SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.3}], lr=0.1, momentum=0.9)
        for _ in range(steps):
            for p in params:
                quadratic(p)
            optimizer.step()
        return params, optimizer

    def test_form(self):
        _, optimizer = self.trained()
        state = optimizer.state_dict()
        assert list(state["state"]) == [0, 1]
        assert [set(kept) for kept in state["state"].values()] == [{"momentum_buffer"}] * 2
        assert [group["params"] for group in state["param_groups"]] == [[0], [1]]
        assert json.loads(json.dumps(state["param_groups"])) == state["param_groups"]
        state["state"][0]["momentum_buffer"][:] = 99
        assert not (optimizer.state_dict()["state"][0]["momentum_buffer"] == 99).any()

    def test_before_the_first_step(self):
        _, optimizer = self.trained(steps=0)
        assert optimizer.state_dict()["state"] == {}

    def test_going_on_gives_the_same_bits(self):
        params, optimizer = self.trained()
        twins, other = self.trained(steps=0)
        saved = copy.deepcopy(optimizer.state_dict())
        saved["param_groups"] = json.loads(json.dumps(saved["param_groups"]))
        for p, twin in zip(params, twins, strict=True):
            twin.data = p.numpy().copy()
        other.load_state_dict(saved)
        for _ in range(3):
            for pair in zip(params, twins, strict=True):
                for p in pair:
                    quadratic(p)
            optimizer.step()
            other.step()
        for p, twin in zip(params, twins, strict=True):
            np.testing.assert_array_equal(p.numpy(), twin.numpy())
            assert other.state[twin]["momentum_buffer"].dtype == p.dtype
        assert other.param_groups[1]["lr"] == 0.3

    def test_a_loaded_state_is_a_copy_in_the_arrays_that_were_there(self):
        params, optimizer = self.trained()
        held = optimizer.state[params[0]]["momentum_buffer"]
        saved = optimizer.state_dict()
        quadratic(params[0])
        optimizer.step()
        optimizer.load_state_dict(saved)
        assert optimizer.state[params[0]]["momentum_buffer"] is held
        np.testing.assert_array_equal(held, saved["state"][0]["momentum_buffer"])
        optimizer.step()
        assert not np.array_equal(held, saved["state"][0]["momentum_buffer"])

    def test_a_loaded_state_is_a_copy_in_the_parameters_dtype(self):
        _, optimizer = self.trained()
        saved = optimizer.state_dict()
        saved["state"][1]["momentum_buffer"] = saved["state"][1]["momentum_buffer"].astype(np.float64)
        before = copy.deepcopy(saved)
        twins, other = self.trained(steps=0)
        other.load_state_dict(saved)
        assert other.state[twins[1]]["momentum_buffer"].dtype == np.float32
        for p in twins:
            quadratic(p)
        other.step()
        for index, kept in before["state"].items():
            np.testing.assert_array_equal(saved["state"][index]["momentum_buffer"], kept["momentum_buffer"])

    def test_a_first_step_with_dampening_after_loading_is_no_first_step(self):
        p, q = leaf([1.0]), leaf([1.0])
        one, other = SGD([p], 0.1, 0.9, 0.5), SGD([q], 0.1, 0.9, 0.5)
        quadratic(p, 0)
        one.step()
        q.data = p.numpy().copy()
        other.load_state_dict(one.state_dict())
        for x in (p, q):
            quadratic(x, 0)
        one.step()
        other.step()
        assert p.item() == q.item()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("state"), "no state_dict of an optimizer.*KeyError"),
            (lambda s: s.update(param_groups=3), "no state_dict of an optimizer.*TypeError"),
            (lambda s: s["param_groups"].pop(), r"groups of \[1\] parameters, the optimizer has groups of \[1, 1\]"),
            (lambda s: s["param_groups"][1].update(params=[1, 2]), r"groups of \[1, 2\] parameters"),
            (lambda s: s["param_groups"][1].pop("dampening"), "lacks SGD's option dampening"),
            (lambda s: s["param_groups"][1].update(lr=-1), r"lr is -1\.0"),
            (lambda s: s["state"].update({7: {}}), "state of parameter 7, but its groups do not have it"),
            (lambda s: s["state"][1].update(momentum_buffer=np.ones(2)),
             r"momentum_buffer of parameter 1 is float64\(2,\), but the parameter is float32\(1,\)"),
            (lambda s: s["state"][1].update(momentum_buffer=np.array(["x"])), "momentum_buffer of parameter 1 is <U1"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_changes_nothing(self, change, message):
        _, optimizer = self.trained()
        before, bad = optimizer.state_dict(), optimizer.state_dict()
        bad["param_groups"][0]["lr"] = 0.7
        bad["state"][0]["momentum_buffer"] += 1
        change(bad)
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(bad)
        after = optimizer.state_dict()
        assert after["param_groups"] == before["param_groups"]
        for index, kept in before["state"].items():
            np.testing.assert_array_equal(kept["momentum_buffer"], after["state"][index]["momentum_buffer"])

    def test_nothing_else_than_a_dict(self):
        with pytest.raises(ValueError, match="no state_dict of an optimizer"):
            self.trained()[1].load_state_dict([1, 2])


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lr": -0.1}, r"lr is -0\.1: it must be finite and 0 or larger"),
            ({"lr": float("nan")}, "lr is nan: it must be finite"),
            ({"lr": float("inf")}, "lr is inf: it must be finite"),
            ({"momentum": -0.1}, r"momentum is -0\.1: it must be finite and 0 or larger"),
            ({"momentum": 1}, r"momentum is 1\.0: it must be in \[0, 1\)"),
            ({"momentum": float("nan")}, "momentum is nan"),
            ({"weight_decay": -1}, r"weight_decay is -1\.0"),
            ({"dampening": float("nan")}, "dampening is nan"),
            ({"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
            ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "Nesterov momentum requires a momentum"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            SGD([leaf([1.0])], **{"lr": 0.1, **options})
        with pytest.raises(ValueError, match=message):
            SGD([{"params": [leaf([1.0])], **options}], lr=0.1)

    def test_options_that_are_no_numbers_or_unknown(self):
        with pytest.raises(TypeError, match="lr is None: it must be a number"):
            SGD([leaf([1.0])], lr=None)
        with pytest.raises(ValueError, match="SGD has no option 'learning_rate'; it has lr, momentum"):
            SGD([{"params": [leaf([1.0])], "learning_rate": 0.1}])

    def test_no_parameters(self):
        parameters = nn.Linear(2, 2).parameters()
        SGD(parameters)
        for empty in ([], parameters, nn.ReLU().parameters()):
            with pytest.raises(ValueError, match=r"empty parameter list.*pass model\.parameters\(\)"):
                SGD(empty)
        with pytest.raises(ValueError, match="empty parameter list in a group"):
            SGD([{"params": []}])

    def test_forms(self):
        for params in (leaf([1.0]), np.ones(2), {"params": []}):
            with pytest.raises(TypeError, match=r"must be a list of Tensors or of groups, not .*; write \[params\]"):
                SGD(params)
        with pytest.raises(TypeError, match='a group is a dict with "params", not dict'):
            SGD([{"lr": 0.1}])
        with pytest.raises(TypeError, match=r"not float64\(1,\); do not mix groups and Tensors"):
            SGD([{"params": [leaf([1.0])]}, leaf([1.0])])

    @pytest.mark.parametrize(
        ("make", "kind", "message"),
        [
            (lambda: np.ones(2), TypeError, r"changes Tensors, but parameter 1 is float64\(2,\); use nn\.Parameter"),
            (lambda: leaf([1.0]) * 2, ValueError, r"parameter 1, float64\(1,\), is not a leaf"),
            (lambda: tg.Tensor([1.0]), ValueError, r"parameter 1, float64\(1,\), does not require a gradient"),
        ],
    )
    def test_what_cannot_be_learned(self, make, kind, message):
        with pytest.raises(kind, match=message):
            SGD([leaf([1.0]), make()])
        with pytest.raises(kind, match=message.replace("parameter 1", "parameter 'w'")):
            SGD([("v", leaf([1.0])), ("w", make())])

    def test_the_same_parameter_twice(self):
        p = leaf([1.0])
        for params in ([p, p], [{"params": [p]}, {"params": [p]}]):
            with pytest.raises(ValueError, match="is given twice, so a step would update it twice"):
                SGD(params)

    def test_a_refused_group_leaves_the_optimizer_as_it_was(self):
        optimizer = SGD([leaf([1.0])], lr=0.1)
        for group in ({"params": [leaf([1.0])], "lr": -1}, {"params": [leaf([1.0]), np.ones(1)]}):
            with pytest.raises((ValueError, TypeError)):
                optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1


class Listening:
    """A listener that looks inside rules, and offers the numbers as 0-d Tensors of the step."""

    grad = True
    lift = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []
        self.look_ups: list[Any] = []

    def record(self, op: Any, values: Any, options: Any, answer: Any, *_: Any) -> Any:
        self.seen.append((op.__name__, "out" in options))
        return answer

    def hyper(self, look_up: Any, options: dict[str, Any]) -> dict[str, tg.Tensor]:
        self.look_ups.append(look_up)
        return {name: tg.Tensor(np.float64(number)) for name, number in look_up().items()}


class Plain(Listening):
    """One that leaves numbers as they are."""

    hyper = None  # type: ignore[assignment]


class TestRecorded:
    @each_option
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("listener", [Listening, Plain])
    def test_a_recorded_step_equals_an_eager_one_to_the_last_bit(self, options, dtype, listener):
        eager, recorded = leaf([1.0, -2.0, 3.0], dtype), leaf([1.0, -2.0, 3.0], dtype)
        optimizers = SGD([eager], **options), SGD([recorded], **options)
        array = recorded._data
        for _ in range(4):
            quadratic(eager)
            optimizers[0].step()
            with listening(listener()):
                quadratic(recorded)
                optimizers[1].step()
            np.testing.assert_array_equal(eager.numpy(), recorded.numpy())
        assert recorded._data is array
        assert recorded.is_leaf
        assert recorded.requires_grad
        if "momentum" in options:
            buffers = [o.state[p]["momentum_buffer"] for o, p in zip(optimizers, (eager, recorded), strict=True)]
            np.testing.assert_array_equal(*buffers)

    def test_every_change_in_place_is_seen(self):
        p = leaf([1.0])
        optimizer = SGD([p], lr=0.1, momentum=0.9)
        quadratic(p)
        listener = Listening()
        with listening(listener):
            optimizer.step()
        assert [name for name, in_place in listener.seen if in_place] == ["multiply", "add", "subtract"]

    def test_numbers_are_looked_up_anew(self):
        p = leaf([1.0])
        optimizer = SGD([p], lr=0.1, momentum=0.9)
        quadratic(p)
        listener = Listening()
        with listening(listener):
            optimizer.step()
        (look_up,) = listener.look_ups
        before = look_up()
        optimizer.param_groups[0]["lr"] = 0.01
        assert look_up() == {**before, "lr": 0.01}
        assert before["lr"] == 0.1
