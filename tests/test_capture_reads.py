"""What a captured step reads of Python is guarded: globals, closed-over variables, defaults, attributes, items, modules, optimizers.

Programs and `follow` as in test_capture_truth: two copies, one plain and one captured, are changed alike between calls.
"""

import copy
import functools
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
from capturing import BACKENDS, compiled_steps  # noqa: F401
from test_capture_truth import LABELS, X, follow, nothing

import tinygrad_scratch as tg
from tinygrad_scratch import nn, optim
from tinygrad_scratch.errors import CaptureError, CaptureWarning
from tinygrad_scratch.nn import functional as F

SCALE, SETTINGS, ACTIVATION = 2.0, {"scale": 2.0, "more": [1.0, 2.0]}, np.tanh


def late(n, change, *others):
    """A change that is made at calls 4 and 6."""
    if n in (4, 6):
        change(n)


# -- globals, cells, defaults, attributes, items -------------------------------------------------------------------------


def a_global_number():
    names = {"scale": 2.0}
    exec("def step(x): return x * scale", names)
    return names["step"], lambda n: late(n, lambda n: names.update(scale=n / 3)), lambda: ()


def a_global_function():
    names = {"f": np.tanh}
    exec("def step(x): return f(x)", names)
    return names["step"], lambda n: late(n, lambda n: names.update(f=np.sin if n < 5 else np.cos)), lambda: ()


def a_global_of_another_module():
    config = types.ModuleType(f"a_config_{id(object())}")
    config.ALPHA, config.inner = 2.0, SimpleNamespace(beta=1.0)

    def step(x):
        return x * config.ALPHA + config.inner.beta

    return (
        step,
        lambda n: late(n, lambda n: (setattr(config, "ALPHA", n), setattr(config.inner, "beta", -n))),
        lambda: (),
    )


def imported_within_the_step():
    config = types.ModuleType(f"a_config_{id(object())}")
    config.ALPHA = 2.0
    names = {}
    sys.modules[config.__name__] = config
    exec(f"def step(x):\n    from {config.__name__} import ALPHA\n    return x * ALPHA", names)
    return names["step"], lambda n: late(n, lambda n: setattr(config, "ALPHA", n)), lambda: ()


def a_cell():
    alpha = 2.0

    def step(x):
        return x * alpha

    def change(n):
        nonlocal alpha
        if n in (4, 6):
            alpha = n / 7

    return step, change, lambda: ()


def a_cell_of_a_helper():
    alpha = 2.0

    def helper(x):
        def inner(y):
            return y * alpha

        return inner(x) + alpha

    def step(x):
        return [helper(row) for row in (x[0], x[1])][1]

    def change(n):
        nonlocal alpha
        if n in (4, 6):
            alpha = n / 7

    return step, change, lambda: ()


def two_closures_of_one_code():
    def make(alpha):
        def f(x):
            return x * alpha

        def change(value):
            nonlocal alpha
            alpha = value

        return f, change

    (f, change_f), (g, change_g) = make(2.0), make(3.0)

    def step(x):
        return f(x) + g(x)

    return step, lambda n: (late(n, change_f), late(n + 1, lambda n: change_g(-n))), lambda: ()


def the_default_of_an_argument():
    def helper(x, scale=2.0, *, shift=1.0, parts=[0.5]):  # noqa: B006
        return x * scale + shift + parts[0]

    def step(x):
        return helper(x)

    def change(n):
        late(n, lambda n: setattr(helper, "__defaults__", (n / 3, [0.5])))
        late(n - 1, lambda n: setattr(helper, "__kwdefaults__", {"shift": float(n)}) if n < 6 else None)
        late(n + 1, lambda n: helper.__defaults__[1].__setitem__(0, n))

    helper.__defaults__ = (2.0, [0.5])
    exec_helper = helper

    def positional(x, scale=2.0, parts=(0.5,), *, shift=1.0):
        return x * scale + shift + parts[0]

    exec_helper.__code__ = positional.__code__
    exec_helper.__defaults__ = (2.0, [0.5])
    return step, change, lambda: ()


def the_code_of_a_function():
    def helper(x):
        return x * 2

    def other(x):
        return x * 3

    def step(x):
        return helper(x)

    return step, lambda n: late(n, lambda n: setattr(helper, "__code__", other.__code__)), lambda: ()


class Trainer:
    gain = 1.5  # of the class

    def __init__(self):
        self.alpha, self.config, self.shift = 2.0, {"beta": 1.0, "log": []}, SimpleNamespace(by=0.5)
        self.layers = [SimpleNamespace(scale=1.0), SimpleNamespace(scale=2.0)]
        self.function = np.tanh

    @property
    def doubled(self):
        return self.alpha * 2

    def helper(self, x):
        return x * self.gain

    def step(self, x):
        self.config["log"] = 3
        y = self.helper(self.function(x) * self.alpha * self.config["beta"]) + self.shift.by + self.doubled
        for layer in self.layers:
            y = y * layer.scale
        return y + self.layers[0].scale + sum(layer.scale for layer in self.layers)

    __call__ = step


CHANGES = {
    "an attribute": lambda t, n: setattr(t, "alpha", n / 3),
    "an item of a dict": lambda t, n: t.config.update(beta=n / 3),
    "an attribute of an attribute": lambda t, n: setattr(t.shift, "by", n),
    "an attribute of an item": lambda t, n: setattr(t.layers[1], "scale", n),
    "an item of a list": lambda t, n: t.layers.append(SimpleNamespace(scale=n)),
    "a function": lambda t, n: setattr(t, "function", np.sin),
    "another object": lambda t, n: setattr(t, "shift", SimpleNamespace(by=-n)),
    "a number in the place of the class's": lambda t, n: setattr(t, "gain", n),
    "a method": lambda t, n: setattr(t, "helper", lambda x: x - n),
    "what is not read": lambda t, n: (setattr(t, "unused", n), t.config.update(other=n)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("how", ["method", "callable", "partial", "decorated"])
def test_attributes_of_objects(change, how):
    def program():
        trainer = Trainer()

        @functools.wraps(trainer.step)
        def decorated(x):
            return trainer.step(x)

        step = {
            "method": trainer.step, "callable": trainer, "partial": functools.partial(Trainer.step, trainer), "decorated": decorated,
        }[how]  # fmt: skip
        return step, lambda n: late(n, lambda n: CHANGES[change](trainer, n)), lambda: ()

    captured = follow(program)
    if change == "what is not read":
        assert [plan.calls for plan in captured.plans] == [6]


def test_a_class_that_is_changed():
    class Mine(Trainer):
        pass

    def less(self, x):
        return x - 1

    def change(n):
        Mine.gain = 1.5 if n < 4 else 2.5
        Mine.helper = Trainer.helper if n < 6 else less

    trainer = Mine()
    captured = tg.capture(trainer.step, backend="numpy", rewrites=False)
    for n in range(9):
        change(n)
        assert captured(X).tolist() == trainer.step(tg.as_tensor(X)).tolist()


def attributes_by_name():
    config = SimpleNamespace(alpha=2.0, beta=1.0)

    def step(x):
        return x * sum(getattr(config, name) for name in ("alpha", "beta")) + (
            vars(config)["beta"] if hasattr(config, "beta") else 0
        )

    return step, lambda n: late(n, lambda n: setattr(config, "alpha" if n < 5 else "beta", n)), lambda: ()


def containers():
    numbers, names = [1.0, 2.0], {"a": (1.0, [2.0])}

    def step(x):
        return x * sum(numbers) + max(names["a"][1]) + len(names)

    def change(n):
        if n == 3:
            numbers.append(n)
        if n == 6:
            names["a"][1].append(float(n))
        if n == 9:
            names["b"] = 1

    return step, change, lambda: ()


def branches_on_values():
    flags = SimpleNamespace(on=True, mode="a", limit=None)

    def step(x):
        y = x * 2 if flags.on else x
        y = y + 1 if flags.mode == "a" else y
        return y if flags.limit is None else np.minimum(y, flags.limit)

    def change(n):
        flags.on, flags.mode, flags.limit = n < 4, "a" if n < 6 else "b", None if n < 8 else 0.5

    return step, change, lambda: ()


def dtypes_and_shapes():
    kind = SimpleNamespace(dtype=np.float32, shape=(20,))

    def step(x):
        return x.astype(kind.dtype).reshape(kind.shape)

    def change(n):
        kind.dtype, kind.shape = np.float32 if n < 4 else np.float64, (20,) if n < 6 else (2, 10)

    return step, change, lambda: ()


def an_array_that_is_another_one():
    held = SimpleNamespace(w=np.ones(4))

    def step(x):
        return x * held.w

    return step, lambda n: late(n, lambda n: setattr(held, "w", np.full(4, n))), lambda: ()


def a_tensor_that_is_another_one():
    held = {"w": tg.Tensor(np.ones(4), requires_grad=True)}

    def step(x):
        loss = np.sum((x * held["w"]) ** 2)
        (g,) = tg.gradients(loss, [held["w"]])
        with tg.no_grad():
            held["w"][...] = held["w"] - 0.01 * g
        return loss

    def change(n):
        late(n, lambda n: held.update(w=tg.Tensor(np.full(4, n * 0.1), requires_grad=True)))

    return step, change, lambda: (held["w"],)


def signed_zeros_and_nan():
    held = SimpleNamespace(a=0.0)

    def step(x):
        return np.copysign(np.ones(4), held.a) * x

    def change(n):
        held.a = [0.0, 0.0, 0.0, -0.0, -0.0, float("nan"), 1, True, 1.0][min(n, 8)]

    return step, change, lambda: ()


PLACES = [
    a_global_number, a_global_function, a_global_of_another_module, imported_within_the_step, a_cell, a_cell_of_a_helper,
    two_closures_of_one_code, the_default_of_an_argument, the_code_of_a_function, attributes_by_name, containers, branches_on_values,
    dtypes_and_shapes, an_array_that_is_another_one, a_tensor_that_is_another_one, signed_zeros_and_nan,
]  # fmt: skip


@pytest.mark.parametrize("program", PLACES)
def test_places(program):
    follow(program, calls=12)


# -- modules and optimizers ----------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        self.alpha, self.names = 0.5, {"beta": 1.0}
        self.first = nn.Linear(4, 6, rng=0, dtype=np.float64)
        self.norm = nn.BatchNorm1d(6, dtype=np.float64)
        self.drop = nn.Dropout(0.4, rng=1)
        self.leaky = nn.LeakyReLU(0.1)
        self.layers = nn.ModuleList([nn.Linear(6, 6, rng=2, dtype=np.float64)])
        self.heads = nn.ModuleDict({"a": nn.Linear(6, 3, rng=3, dtype=np.float64)})
        self.loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.extra = None

    def forward(self, x):
        x = self.leaky(self.drop(self.norm(self.first(x)))) * self.alpha + self.names["beta"]
        for layer in self.layers:
            x = np.tanh(layer(x))
        if self.extra is not None:
            x = self.extra(x)
        return sum(head(x) for head in self.heads.values())


def training(change=nothing, **options):
    """A program that trains a Net; ``change(n, net, optimizer)``."""

    def program():
        net = Net()
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9, **options)
        held = SimpleNamespace(net=net, optimizer=optimizer, labels=LABELS)

        def step(x):
            loss = held.net.loss(held.net(x), held.labels)
            held.optimizer.zero_grad()
            loss.backward()
            held.optimizer.step()
            return loss

        return step, lambda n: change(n, held.net, held.optimizer), lambda: (held.net, held.optimizer)

    return program


def linear(rng):
    return nn.Linear(6, 6, rng=rng, dtype=np.float64)


NET_CHANGES = {
    "frozen": lambda n, m, o: [p.requires_grad_(n < 4) for p in m.first.parameters()],
    "frozen by its attribute": lambda n, m, o: setattr(m.first.weight, "requires_grad", n not in (4, 5)),
    "a buffer": lambda n, m, o: setattr(m.norm, "running_mean", tg.Tensor(np.full(6, 0.1 * n))) if n in (4, 6) else None,
    "a new part": lambda n, m, o: m.add_module("extra", linear(9)) if n == 4 else None,
    "a part in a list": lambda n, m, o: m.layers.append(linear(9)) if n == 4 else None,
    "a part in a dict": lambda n, m, o: m.heads.update({"b": nn.Linear(6, 3, rng=5, dtype=np.float64)}) if n == 4 else None,
    "a part taken out of a list": lambda n, m, o: m.layers.pop() if n == 4 else None,
    "another part in a list": lambda n, m, o: m.layers.__setitem__(0, linear(8)) if n == 4 else None,
    "an attribute that is deleted": lambda n, m, o: delattr(m.leaky, "forward") if n == 5 else setattr(m.leaky, "forward", np.tanh) if n == 4 else None,
    "another forward": lambda n, m, o: setattr(m.leaky, "forward", np.tanh) if n == 4 else None,
    "a number": lambda n, m, o: setattr(m, "alpha", 0.5 if n < 4 else 0.25),
    "an item": lambda n, m, o: m.names.update(beta=1.0 if n < 4 else 0.25),
    "dropout.p": lambda n, m, o: setattr(m.drop, "p", 0.4 if n < 4 else 0.1),
    "norm.momentum": lambda n, m, o: setattr(m.norm, "momentum", 0.1 if n < 4 else 0.3),
    "norm.eps": lambda n, m, o: setattr(m.norm, "eps", 1e-5 if n < 4 else 1e-2),
    "leaky.negative_slope": lambda n, m, o: setattr(m.leaky, "negative_slope", 0.1 if n < 4 else 0.3),
    "label_smoothing": lambda n, m, o: setattr(m.loss, "label_smoothing", 0.1 if n < 4 else 0.3),
    "eval": lambda n, m, o: m.train(n not in (4, 5, 7)),
    "eval of a part": lambda n, m, o: m.drop.train(n < 4),
    "another generator": lambda n, m, o: setattr(m.drop, "rng", np.random.default_rng(n)) if n == 4 else None,
    "weights that are other arrays": lambda n, m, o: setattr(m.first.weight, "data", m.first.weight.data * 0.5) if n == 4 else None,
    "weights that are written": lambda n, m, o: m.first.weight.data.__imul__(0.9),
    "weights that are loaded": lambda n, m, o: m.load_state_dict({k: v * 0.9 for k, v in m.state_dict().items() if v.dtype.kind == "f"}, strict=False) if n == 4 else None,
    "a hook": lambda n, m, o: m.first.register_forward_hook(lambda _, x, y: y * 2) if n == 4 else None,
    "another parameter": lambda n, m, o: setattr(m.first, "bias", nn.Parameter(np.full(6, 0.5))) if n == 4 else None,
    "no bias": lambda n, m, o: setattr(m.first, "bias", None) if n == 4 else None,
    "a copy in eval mode": lambda n, m, o: copy.deepcopy(m).eval(),
    "an attribute that is not read": lambda n, m, o: setattr(m, "seen", n),
    "a rate": lambda n, m, o: o.param_groups[0].update(lr=0.1 / (n + 1)),
    "momentum off": lambda n, m, o: o.param_groups[0].update(momentum=0.9 if n < 4 else 0.0),
    "maximize": lambda n, m, o: o.param_groups[0].update(maximize=n in (4, 5)),
    "a new group": lambda n, m, o: o.add_param_group({"params": o.param_groups[0]["params"].pop(), "lr": 1.0}) if n == 4 else None,
    "a group less": lambda n, m, o: o.param_groups.append({**o.param_groups[0], "params": [o.param_groups[0]["params"].pop()], "lr": 0.5}) if n == 3 else o.param_groups.pop() if n == 5 else None,
    "a parameter less": lambda n, m, o: o.param_groups[0]["params"].pop() if n == 4 else None,
    "other parameters": lambda n, m, o: o.param_groups[0].update(params=[m.first.weight]) if n == 4 else None,
    "state that is cleared": lambda n, m, o: o.state.clear() if n in (4, 6) else None,
    "state of one that is cleared": lambda n, m, o: o.state.update({m.first.weight: {}}) if n == 4 else None,
    "state that is another dict": lambda n, m, o: setattr(o, "state", {}) if n == 4 else None,
    "state that is loaded": lambda n, m, o: o.load_state_dict(o.state_dict()) if n == 4 else None,
    "gradients that are set between": lambda n, m, o: setattr(m.first.bias, "grad", tg.Tensor(np.ones(6))) if n in (4, 5) else None,
}  # fmt: skip
ONE_PLAN = {
    "weights that are written", "weights that are loaded", "a copy in eval mode", "an attribute that is not read", "a rate",
    "gradients that are set between",
}  # fmt: skip


@pytest.mark.parametrize("change", NET_CHANGES)
@pytest.mark.parametrize("backend", BACKENDS[:1])
def test_modules_and_optimizers(change, backend):
    captured = follow(training(NET_CHANGES[change]), backend, calls=9)
    if change in ONE_PLAN:
        assert [plan.calls for plan in captured.plans] == [7]


def test_some_of_them_compiled():
    pytest.importorskip("numba")
    for change in ("frozen", "dropout.p", "state that is cleared"):
        follow(training(NET_CHANGES[change]), "numba", calls=7)


def test_another_model_and_another_optimizer():
    """As in cross-validation: each fold binds the names anew."""

    def program():
        fold = SimpleNamespace()

        def start(n):
            if n % 4 == 0:
                fold.model = nn.Linear(4, 3, rng=n, dtype=np.float64)
                fold.optimizer = optim.Adam(fold.model.parameters(), lr=0.1)

        def step(x):
            loss = F.cross_entropy(fold.model(x), LABELS)
            fold.optimizer.zero_grad()
            loss.backward()
            fold.optimizer.step()
            return loss

        start(0)
        return step, start, lambda: (fold.model, fold.optimizer)

    captured = follow(program, calls=16)
    assert [plan.calls for plan in captured.plans] == [2, 2, 2, 2]


def test_a_module_that_has_nothing_to_do_with_the_step():
    other = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
    captured = follow(training(lambda n, m, o: other.train(n % 2 == 0)))
    assert [plan.calls for plan in captured.plans] == [6]


def test_modes_come_and_go_without_recording():
    captured = follow(training(lambda n, m, o: m.train(n % 4 < 2)), calls=20)
    assert len(captured.plans) == 2
    assert sum(plan.calls for plan in captured.plans) == 16


# -- what is told --------------------------------------------------------------------------------------------------------


def test_a_number_that_changes_in_every_call_is_named():
    held = SimpleNamespace(alpha=1.0)
    step = tg.capture(lambda x: x * held.alpha, backend="numpy")
    for n in range(4):
        held.alpha = n + 1.0
        step(X)
    held.alpha = 5.0
    with pytest.raises(CaptureError, match=r"'alpha' of SimpleNamespace \(it was 4\.0, then 5\.0\).*0-d array"):
        step(X)


def test_what_was_another_one_how_often_is_explained():
    held = SimpleNamespace(alpha=1.0)
    step = tg.capture(lambda x: x * held.alpha, backend="numpy")
    for n in range(9):
        held.alpha = n // 3
        step(X)
    assert "recorded again 2 times: 'alpha' of SimpleNamespace was another than before" in step.explain()


def test_a_number_that_changes_often_is_warned_of():
    held = SimpleNamespace(alpha=1.0)
    step = tg.capture(lambda x: x * held.alpha, backend="numpy")
    for n in range(22):
        held.alpha = n // 2
        if n == 20:  # the eleventh number
            with pytest.warns(CaptureWarning, match="recorded anew 10 times because 'alpha' of .*0-d array"):
                step(X)
        assert step(X).tolist() == (X * held.alpha).tolist()


def test_the_way_that_the_message_names():
    alpha = tg.Tensor(1.0)

    def step(x):
        with tg.no_grad():
            alpha[...] = alpha * 0.5
        return x * alpha

    captured = tg.capture(step, backend="numpy")
    for n in range(5):
        assert captured(X).tolist() == (X * 0.5 ** (n + 1)).tolist()


@pytest.mark.parametrize("write", ["counted += 1", "log.append(1)", "table['n'] = 1", "table['k'] += 1", "held.n += 1"])
def test_what_a_step_only_counts_or_logs_is_no_reason_to_record_again(write):
    names = {"counted": 0, "log": [], "table": {"k": 0}, "held": SimpleNamespace(n=0)}
    exec(f"def step(x):\n    global counted\n    {write}\n    return x * 2", names)
    step = tg.capture(names["step"], backend="numpy")
    for _ in range(6):
        step(X)
    assert [plan.calls for plan in step.plans] == [4]


def test_a_tracer_that_is_there_goes_on_hearing():
    heard = []

    def tracer(frame, event, argument):
        heard.append((frame.f_code.co_name, event))
        return tracer

    def step(x):
        y = x * 2
        return y + 1

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        tg.capture(step, backend="numpy")(X)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert heard.count(("step", "line")) == 2


def test_the_tracer_is_gone_after_an_error():
    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError):
        tg.capture(lambda x: x / (1 // 0), backend="numpy")(X)
    assert sys.gettrace() is before
