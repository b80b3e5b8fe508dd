"""Adam, AdamW, RMSprop and Adagrad against their formulas in NumPy, eagerly and captured; clipping of gradients."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from capturing import BACKENDS, assert_same, compiled_steps, tolerance_for  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.context import listening
from tinygrad_scratch.nn.utils import clip_grad_norm_, clip_grad_value_
from tinygrad_scratch.optim import Adagrad, Adam, AdamW, RMSprop, optimizer


def adam(
    p, gradients, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False, apart=False
):
    m = v = top = 0.0
    for t, g in enumerate(gradients, 1):
        g = -g if maximize else g
        if apart:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        top = np.maximum(top, v)
        divisor = np.sqrt((top if amsgrad else v) / (1 - betas[1] ** t)) + eps
        p = p - lr * (m / (1 - betas[0] ** t)) / divisor
        yield p


def adamw(p, gradients, weight_decay=1e-2, **options):
    return adam(p, gradients, weight_decay=weight_decay, apart=True, **options)


def rmsprop(
    p, gradients, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False, maximize=False
):
    v = m = b = 0.0
    for g in gradients:
        g = (-g if maximize else g) + weight_decay * p
        v, m = alpha * v + (1 - alpha) * g**2, alpha * m + (1 - alpha) * g
        b = momentum * b + g / (np.sqrt(v - m**2 if centered else v) + eps)
        p = p - lr * b
        yield p


def adagrad(
    p, gradients, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10, maximize=False
):
    s = initial_accumulator_value
    for t, g in enumerate(gradients):
        g = (-g if maximize else g) + weight_decay * p
        s = s + g**2
        p = p - lr / (1 + t * lr_decay) * g / (np.sqrt(s) + eps)
        yield p


ALL: list[tuple[Any, Any, dict[str, Any]]] = [
    (Adam, adam, {}),
    (Adam, adam, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}),
    (Adam, adam, {"weight_decay": 0.1, "maximize": True}),
    (Adam, adam, {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1}),
    (AdamW, adamw, {}),
    (AdamW, adamw, {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True, "maximize": True}),
    (RMSprop, rmsprop, {}),
    (RMSprop, rmsprop, {"momentum": 0.9, "weight_decay": 0.1}),
    (RMSprop, rmsprop, {"momentum": 0.5, "centered": True, "maximize": True, "weight_decay": 0.1, "alpha": 0.8}),
    (Adagrad, adagrad, {}),
    (Adagrad, adagrad, {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5, "maximize": True}),
]
each = pytest.mark.parametrize(("kind", "formula", "options"), ALL, ids=lambda x: getattr(x, "__name__", str(x)))


def leaf(values: Any, dtype: Any = np.float64) -> tg.Tensor:
    return tg.Tensor(values, dtype, requires_grad=True)


class TestFormulas:
    @each
    def test_every_step(self, kind, formula, options):
        rng = np.random.default_rng(0)
        start, gradients = rng.normal(size=(3, 2)), list(rng.normal(size=(20, 3, 2)))
        p = leaf(start)
        optimizer = kind([p], **options)
        for g, expected in zip(gradients, formula(start, gradients, **options), strict=True):
            p.grad = tg.Tensor(g)
            optimizer.step()
            np.testing.assert_allclose(p.numpy(), expected, rtol=1e-10)
            np.testing.assert_array_equal(p.grad.numpy(), g)

    @given(st.floats(0, 0.99), st.floats(0, 0.999), st.floats(1e-8, 1), st.floats(0, 1), st.integers(1, 6))
    def test_adam_with_any_options(self, beta1, beta2, eps, weight_decay, steps):
        options = {"lr": 0.1, "betas": (beta1, beta2), "eps": eps, "weight_decay": weight_decay}
        gradients = list(np.random.default_rng(steps).normal(size=(steps, 2)))
        for kind, formula in ((Adam, adam), (AdamW, adamw)):
            p = leaf([1.0, -2.0])
            optimizer = kind([p], **options)
            for g in gradients:
                p.grad = tg.Tensor(g)
                optimizer.step()
            *_, expected = formula(np.array([1.0, -2.0]), gradients, **options)
            np.testing.assert_allclose(p.numpy(), expected, rtol=1e-8)

    @each
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_an_update_in_parts_is_the_same_to_the_last_bit(self, kind, formula, options, dtype, order, monkeypatch):
        rng = np.random.default_rng(0)
        start, gradients = np.asarray(rng.normal(size=(9, 7)), order=order), rng.normal(size=(3, 9, 7)).astype(dtype)

        def train() -> list[Any]:
            p = nn.Parameter(start, dtype)
            optimizer = kind([p], **options)
            for g in gradients:
                p.grad = tg.Tensor(g)
                optimizer.step()
            return [p.numpy(), *optimizer.state[p].values()]

        whole = train()
        monkeypatch.setattr(kind, "whole", 20)
        monkeypatch.setattr(optimizer, "_PART", 10)
        assert_same(train(), whole)
        assert all(array.dtype == dtype for array in whole if array.ndim)

    def test_without_gradients_nothing_happens(self):
        p, q = leaf([1.0]), leaf([2.0])
        optimizer = Adam([p, q], lr=0.1, weight_decay=0.5)
        p.grad = tg.Tensor([1.0])
        optimizer.step()
        assert q.tolist() == [2.0]
        assert list(optimizer.state) == [p]

    def test_parameters_count_their_own_steps(self):
        rng = np.random.default_rng(0)
        gradients = list(rng.normal(size=(5, 2)))
        p, q = leaf([1.0, 2.0]), leaf([1.0, 2.0])
        optimizer = Adam([p, q], lr=0.1)
        for n, g in enumerate(gradients):
            p.grad, q.grad = tg.Tensor(g), tg.Tensor(g) if n >= 3 else None
            optimizer.step()
        assert [float(optimizer.state[x]["step"]) for x in (p, q)] == [5, 2]
        *_, expected = adam(np.array([1.0, 2.0]), gradients[3:], lr=0.1)
        np.testing.assert_allclose(q.numpy(), expected)

    def test_no_warning_where_torch_gives_none(self):
        p = leaf([1.0, 2.0], np.float32)
        optimizer = Adam([p], eps=0)
        p.grad = tg.Tensor(np.array([0.0, 1e30], np.float32))
        optimizer.step()
        assert np.isnan(p.numpy()[0])
        assert p.numpy()[1] == 2  # whose gradient's square is infinite

    def test_options_may_change_between_steps_also_in_place(self):
        found = []
        for rates in ([0.1, 0.2, 0.2], [np.array(0.1), None, np.float64(0.2)]):
            p = leaf([1.0])
            optimizer = Adam([p])
            for lr in rates:
                if lr is None:
                    optimizer.param_groups[0]["lr"][...] = 0.2
                else:
                    optimizer.param_groups[0]["lr"] = lr
                p.grad = tg.Tensor([1.0])
                optimizer.step()
            found.append(p.item())
        assert found[0] == found[1] == pytest.approx(0.5)

    def test_amsgrad_may_be_switched_on_later(self):
        p = leaf([1.0])
        optimizer = Adam([p])
        for _ in range(2):
            p.grad = tg.Tensor([1.0])
            optimizer.step()
            optimizer.param_groups[0]["amsgrad"] = True
        assert list(optimizer.state[p]) == ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"]

    def test_groups_have_options_of_their_own(self):
        p, q = leaf([1.0]), leaf([1.0])
        optimizer = AdamW([{"params": [p], "lr": 0.5}, {"params": [q], "betas": [0.5, 0.5]}], lr=0.1, weight_decay=0)
        for x in (p, q):
            x.grad = tg.Tensor([3.0])
        optimizer.step()
        assert [p.item(), q.item()] == pytest.approx([0.5, 0.9])
        assert optimizer.param_groups[1]["betas"] == (0.5, 0.5)


class Listening:
    """A listener that looks inside rules, and offers the numbers as 0-d Tensors of the step."""

    grad = lift = True

    def record(self, op: Any, values: Any, options: Any, answer: Any, *_: Any) -> Any:
        return answer

    def hyper(self, look_up: Any, options: dict[str, Any]) -> dict[str, Any]:
        return {k: v if isinstance(v, bool) else tg.Tensor(np.float64(v)) for k, v in look_up().items()}


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_recorded_step_equals_an_eager_one_to_the_last_bit(kind, formula, options, dtype):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=4), rng.normal(size=(5, 4)).astype(dtype)
    eager, recorded = leaf(start, dtype), leaf(start, dtype)
    optimizers = kind([eager], **options), kind([recorded], **options)
    for g in gradients:
        eager.grad, recorded.grad = tg.Tensor(g), tg.Tensor(g)
        optimizers[0].step()
        with listening(Listening()):
            optimizers[1].step()
        assert_same([recorded.numpy()], [eager.numpy()])
    assert_same(list(optimizers[1].state[recorded].values()), list(optimizers[0].state[eager].values()))


class Training:
    """A small network (smaller: of one weight, to be compiled), its optimizer, and a step that a test may capture."""

    def __init__(self, make: Any, clip: Any = None, dtype: Any = np.float32, small: bool = False):
        self.model = nn.Sequential(nn.Linear(5, 4, rng=0, dtype=dtype), nn.Tanh(), nn.Linear(4, 3, rng=1, dtype=dtype))
        if small:
            self.model = nn.Sequential(nn.Linear(5, 3, bias=False, rng=0, dtype=dtype))
        self.optimizer = make(list(self.model.parameters()))
        self.clip, self.dtype = clip, dtype

    def step(self, x, labels):
        loss = nn.functional.cross_entropy(self.model(x), labels)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip is not None:
            self.clip(self.model.parameters())
        self.optimizer.step()
        return loss

    def values(self):
        kept = self.optimizer.state_dict()["state"]
        return [*self.model.state_dict().values(), *(array for number in kept for array in kept[number].values())]

    def batches(self, count, seed=0):
        rng = np.random.default_rng(seed)
        return [(rng.normal(size=(8, 5)).astype(self.dtype), rng.integers(0, 3, 8)) for _ in range(count)]


CAPTURED = {
    "Adam": (lambda p: Adam([{"params": p[:1], "lr": 0.1}, *({"params": [q]} for q in p[1:])], lr=0.02), True),
    "amsgrad, decay": (lambda p: Adam(p, lr=0.1, amsgrad=True, weight_decay=0.1), False),
    "AdamW": (lambda p: AdamW(p, lr=0.1, weight_decay=0.1), False),
    "RMSprop": (lambda p: RMSprop(p, centered=True, momentum=0.5, weight_decay=0.01), True),
    "Adagrad": (lambda p: Adagrad(p, lr=0.1, lr_decay=0.1), True),
}
RUNS = [
    (name, backend) for backend in ("numpy", "numba") for name, (_, c) in CAPTURED.items() if c or backend == "numpy"
]


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_captured_training_is_eager_training(name, backend):
    if backend == "numba":
        pytest.importorskip("numba")
    clip = (lambda p: clip_grad_norm_(p, 0.5)) if name == "RMSprop" else None
    eager, other = (Training(CAPTURED[name][0], clip, small=backend == "numba") for _ in range(2))
    captured = tg.capture(other.step, backend=backend, rewrites=False)
    tolerance = tolerance_for(backend, False, np.float32)
    for n, batch in enumerate(eager.batches(20)):
        for training in (eager, other):
            if n % 6 == 5:
                training.optimizer.param_groups[0]["lr"] *= 0.5
            if n == 11:
                training.optimizer.param_groups[0]["lr"] = 0.0  # a rate of 0 makes no other step of it
        assert_same([captured(*batch).numpy()], [eager.step(*batch).numpy()], tolerance, f"loss of step {n}")
    assert_same(other.values(), eager.values(), tolerance)
    assert [plan.calls for plan in captured.plans] == [18]
    assert not captured.plan.fallback


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_epoch_counts_its_steps(backend):
    eager, other = (Training(lambda p: Adam(p, lr=0.05), small=True) for _ in range(2))
    captured = tg.capture(other.step, backend=backend)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(44, 5)).astype(np.float32), rng.integers(0, 3, 44)
    for _ in range(2):
        found = captured.epoch(x, labels, batch_size=4)
        expected = [eager.step(x[i : i + 4], labels[i : i + 4]).item() for i in range(0, 44, 4)]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert all(float(kept["step"]) == 22 for kept in other.optimizer.state.values())
    assert_same(other.values(), eager.values(), 2e-4)


def test_an_option_that_shapes_the_step_is_noticed():
    eager, other = (Training(lambda p: Adam(p, lr=0.05)) for _ in range(2))
    captured = tg.capture(other.step, backend="numpy", rewrites=False)
    for n, batch in enumerate(eager.batches(16)):
        for training in (eager, other):
            training.optimizer.param_groups[0].update(
                amsgrad=n >= 4, weight_decay=0.1 * (n >= 8), betas=(0.9 if n < 12 else 0.7, 0.99)
            )
        captured(*batch)
        eager.step(*batch)
    assert_same(other.values(), eager.values())


class TestState:
    @staticmethod
    def trained(kind: Any, steps: int, options: Any, seed: int = 0) -> tuple[list[tg.Tensor], Any]:
        params = [leaf([1.0, 2.0]), leaf([3.0], np.float32)]
        optimizer = kind([{"params": params[:1]}, {"params": params[1:], "lr": 0.3}], **options)
        TestState.go_on(params, optimizer, steps, seed)
        return params, optimizer

    @staticmethod
    def go_on(params: Any, optimizer: Any, steps: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            for p in params:
                p.grad = tg.Tensor(rng.normal(size=p.shape).astype(p.dtype))
            optimizer.step()

    @each
    def test_going_on_gives_the_same_bits(self, kind, formula, options):
        params, optimizer = self.trained(kind, 3, options)
        twins, other = self.trained(kind, 0, options)
        saved = copy.deepcopy(optimizer.state_dict())
        saved["param_groups"] = json.loads(json.dumps(saved["param_groups"]))
        for p, twin in zip(params, twins, strict=True):
            twin.data = p.numpy().copy()
        other.load_state_dict(saved)
        for pair in ((params, optimizer), (twins, other)):
            self.go_on(*pair, 3, seed=1)
        assert_same([p.numpy() for p in twins], [p.numpy() for p in params])
        for one, two in zip(
            other.state_dict()["state"].values(), optimizer.state_dict()["state"].values(), strict=True
        ):
            assert list(one) == list(two)
            assert_same(list(one.values()), list(two.values()))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s["state"][1].pop("exp_avg_sq"), "lacks Adam's exp_avg_sq of parameter 1"),
            (lambda s: s["state"][1].update(step=np.ones(2)), r"step of parameter 1 is float64\(2,\)"),
            (
                lambda s: s["state"][0].update(exp_avg=np.ones(3)),
                r"exp_avg of parameter 0 is float64\(3,\), but the parameter",
            ),
            (lambda s: s["param_groups"][1].update(betas=(0.9, 1)), r"betas\[1\] is 1\.0: it must be in \[0, 1\)"),
            (lambda s: s["param_groups"][0].pop("betas"), "lacks Adam's option betas"),
        ],
    )
    def test_what_does_not_fit_changes_nothing(self, change, message):
        _, optimizer = self.trained(Adam, 2, {})
        before, bad = optimizer.state_dict(), optimizer.state_dict()
        bad["state"][0]["exp_avg"] += 1
        change(bad)
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(bad)
        after = optimizer.state_dict()
        assert after["param_groups"] == before["param_groups"]
        for number, kept in before["state"].items():
            assert_same(list(after["state"][number].values()), list(kept.values()))


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "options", "message"),
        [
            (Adam, {"lr": -1}, r"lr is -1\.0"),
            (Adam, {"betas": (0.9, 1.0)}, r"betas\[1\] is 1\.0: it must be in \[0, 1\)"),
            (Adam, {"betas": (-0.1, 0.9)}, r"betas\[0\] is -0\.1"),
            (Adam, {"eps": float("nan")}, "eps is nan"),
            (AdamW, {"weight_decay": -1}, r"weight_decay is -1\.0"),
            (RMSprop, {"alpha": 1}, r"alpha is 1\.0: it must be in \[0, 1\)"),
            (RMSprop, {"momentum": -1}, r"momentum is -1\.0"),
            (Adagrad, {"lr_decay": -1}, r"lr_decay is -1\.0"),
        ],
    )
    def test_options(self, kind, options, message):
        with pytest.raises(ValueError, match=message):
            kind([leaf([1.0])], **options)

    def test_betas_are_two_numbers(self):
        for betas in (0.9, (0.9,), None):
            with pytest.raises(TypeError, match=r"betas is .*: it must be two numbers, such as \(0\.9, 0\.999\)"):
                Adam([leaf([1.0])], betas=betas)


def with_gradients(*gradients: Any, dtype: Any = np.float64) -> list[nn.Parameter]:
    made = []
    for g in gradients:
        made.append(nn.Parameter(np.zeros(np.shape(g)), dtype))
        made[-1].grad = tg.Tensor(np.array(g, dtype))
    return made


class TestClipping:
    @given(st.sampled_from([1.0, 2.0, 3.0, float("inf")]), st.floats(0.01, 20))
    def test_norm(self, order, most):
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=(3, 2)), rng.normal(size=4)]
        params = with_gradients(*arrays)
        vector = np.concatenate([a.ravel() for a in arrays])
        norm = np.linalg.norm(vector, order)
        assert float(clip_grad_norm_(params, most, order)) == pytest.approx(norm)
        clipped = np.concatenate([p.grad.numpy().ravel() for p in params])
        np.testing.assert_allclose(clipped, vector * min(1, most / norm), rtol=1e-4)

    def test_it_works_in_place_and_keeps_the_dtype(self):
        (p,) = with_gradients([3.0, 4.0], dtype=np.float32)
        array = p.grad._data
        norm = clip_grad_norm_(p, 1.0)
        assert norm.dtype == p.grad.dtype == np.float32
        assert p.grad._data is array
        clip_grad_value_(p, 0.7)
        np.testing.assert_allclose(array, [0.6, 0.7], rtol=1e-5)

    def test_nothing_to_clip(self):
        p = nn.Parameter([1.0])
        assert float(clip_grad_norm_([p], 1.0)) == 0
        clip_grad_value_(iter([p]), 1.0)
        assert p.grad is None

    def test_not_finite(self):
        (p,) = with_gradients([np.inf, 1.0])
        with pytest.raises(RuntimeError, match=r"norm of order 2\.0 is not finite, so they cannot be clipped"):
            clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
        assert p.grad.tolist() == [np.inf, 1.0]
        assert float(clip_grad_norm_([p], 1.0)) == np.inf

    def test_no_tensors(self):
        with pytest.raises(TypeError, match=r"gradients of Tensors are clipped, not of float64\(2,\)"):
            clip_grad_norm_([np.ones(2)], 1.0)

    @pytest.mark.parametrize(
        "clip",
        [
            lambda p: clip_grad_norm_(p, 0.1),
            lambda p: clip_grad_norm_(p, 0.1, np.inf),
            lambda p: clip_grad_value_(p, 0.01),
        ],
    )
    def test_captured(self, clip):
        eager, other = (Training(lambda p: tg.optim.SGD(p, lr=0.5, momentum=0.9), clip, np.float64) for _ in range(2))
        plain = Training(lambda p: tg.optim.SGD(p, lr=0.5, momentum=0.9), None, np.float64)
        captured = tg.capture(other.step, backend="numpy", rewrites=False)
        for batch in eager.batches(6):
            captured(*batch)
            eager.step(*batch)
            plain.step(*batch)
        assert_same(other.values(), eager.values())
        assert not np.allclose(plain.values()[0], eager.values()[0])
