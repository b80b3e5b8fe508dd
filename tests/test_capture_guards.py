"""What a captured step refuses, and what it notices: nothing that changes between calls may give a silently wrong number."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import tinygrad_scratch as tg
import tinygrad_scratch.nn as nn
from tinygrad_scratch.capture.replay import MISS
from tinygrad_scratch.errors import CaptureError
from tinygrad_scratch.optim import SGD

BACKENDS = [
    "numpy",
    pytest.param("numba", marks=pytest.mark.skipif("not __import__('importlib').util.find_spec('numba')")),
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TINYGRAD_SCRATCH_CACHE", str(tmp_path_factory.getbasetemp() / "compiled"))


class Pair:
    """The same small network twice: trained eagerly, and by a captured step."""

    def __init__(self, backend, momentum=0.9, dropout=0.0):
        self.models, self.optimizers, self.steps = [], [], []
        for _ in range(2):
            layers = [nn.Linear(6, 5, rng=0), nn.Sigmoid(), nn.Dropout(dropout, rng=3), nn.Linear(5, 4, rng=1)]
            model = nn.Sequential(*layers)
            optimizer = SGD(model.parameters(), lr=0.1, momentum=momentum)
            self.models.append(model)
            self.optimizers.append(optimizer)
            self.steps.append(self.step_of(model, optimizer))
        self.captured = self.steps[1] = tg.capture(self.steps[1], backend=backend)
        self.rng = np.random.default_rng(0)

    @staticmethod
    def step_of(model, optimizer):
        def step(x, labels):
            loss = tg.softmax_cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    def batch(self, count=3):
        return self.rng.random((count, 6), np.float32), self.rng.integers(0, 4, count)

    def train(self, steps, count=3):
        for _ in range(steps):
            batch = self.batch(count)
            one, two = (float(step(*batch)) for step in self.steps)
            np.testing.assert_allclose(two, one, rtol=2e-5)
        self.compare()

    def compare(self):
        for one, two in zip(*(model.parameters() for model in self.models), strict=True):
            np.testing.assert_allclose(two.data, one.data, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
class TestNotices:
    def test_other_shapes_and_dtypes(self, backend):
        pair = Pair(backend)
        pair.train(4)
        pair.train(4, count=2)
        assert len(pair.captured.plans) == 2
        x, labels = pair.batch()
        for step in pair.steps:
            step(x.astype(np.float64), labels.astype(np.uint8))
        pair.compare()

    def test_a_learning_rate_that_changes(self, backend):
        pair = Pair(backend)
        pair.train(4)
        for optimizer in pair.optimizers:
            optimizer.param_groups[0]["lr"] = 0.5
        pair.train(3)
        assert len(pair.captured.plans) == 1

    def test_an_option_that_changes_the_formula(self, backend):
        pair = Pair(backend, momentum=0.0)
        pair.train(4)
        for optimizer in pair.optimizers:
            optimizer.param_groups[0]["momentum"] = 0.9
        pair.train(4)

    def test_loaded_weights_and_state(self, backend):
        pair = Pair(backend)
        pair.train(4)
        saved = [(m.state_dict(), o.state_dict()) for m, o in zip(pair.models, pair.optimizers, strict=True)]
        pair.train(3)
        for model, optimizer, (weights, state) in zip(pair.models, pair.optimizers, saved, strict=True):
            model.load_state_dict(weights)
            optimizer.load_state_dict(state)
        pair.train(3)

    def test_replaced_arrays(self, backend):
        pair = Pair(backend)
        pair.train(4)
        for model in pair.models:
            for p in model.parameters():
                p.data = p.data * 0.5
        pair.train(3)

    def test_train_and_eval_and_dropout(self, backend):
        pair = Pair(backend, dropout=0.5)
        pair.train(5)
        for model in pair.models:
            model.eval()
        pair.train(4)
        for model in pair.models:
            model.train()
        pair.train(3)

    def test_grad_mode(self, backend):
        f = tg.capture(
            lambda x: tg.gradients(np.sum(x * x), [x])[0] if tg.is_grad_enabled() else x * 2, backend=backend
        )
        x = tg.Tensor([1.0, 2.0], requires_grad=True)
        for _ in range(3):
            assert f(x).tolist() == [2.0, 4.0]
            with tg.no_grad():
                assert f(x).tolist() == [2.0, 4.0]
        assert len(f.plans) == 2

    def test_a_label_out_of_range_changes_nothing(self, backend):
        pair = Pair(backend)
        pair.train(4)
        x, labels = pair.batch()
        for bad in (-1, 4):
            labels[1] = bad
            with pytest.raises(IndexError, match=r"4 classes|bounds"):
                pair.captured(x, labels)
        pair.compare()
        pair.train(2)

    def test_graphs_that_used_the_old_values(self, backend):
        pair = Pair(backend)
        pair.train(3)
        loss = tg.softmax_cross_entropy(pair.models[1](pair.batch()[0]), np.array([0, 1, 2]))
        pair.captured(*pair.batch())
        with pytest.raises(tg.errors.GraphError, match="changed in place"):
            loss.backward()

    def test_threads_take_turns(self, backend):
        f = tg.capture(lambda x: np.exp(x) * 2 + 1, backend=backend)
        inputs = [np.full(1000, k / 7) for k in range(8)]
        for x in inputs[:3]:
            f(x)
        wrong = []

        def work(x):
            wrong.extend(k for k in range(50) if not np.allclose(f(x).numpy(), np.exp(x) * 2 + 1))

        threads = [threading.Thread(target=work, args=(x,)) for x in inputs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_gradients_that_are_left(self, backend):
        w = tg.Tensor([1.0, 2.0], requires_grad=True)

        @tg.capture(backend=backend)
        def step(x):
            w.zero_grad()
            loss = np.sum(w * x * x)
            loss.backward()
            return loss

        for k in range(4):
            step(np.array([k, 2.0]))
            assert w.grad.tolist() == [k * k, 4.0]


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda t: t.item(), "item"),
        (float, "float"),
        (lambda t: 1 if t > 0 else 2, "bool"),
        (str, "str"),
        (lambda t: t.numpy(), "numpy"),
        (lambda t: t.tolist(), "tolist"),
    ],
)
def test_reading_a_value_is_refused(read, name):
    def step(x):
        y = np.sum(x)
        read(y)
        return y

    with pytest.raises(CaptureError, match=f"(?s){name}.*(outside|np.where)"):
        tg.capture(step, backend="numpy")(np.ones(3))


def test_arrays_that_change_by_themselves_are_refused():
    rng = np.random.default_rng(0)
    step = tg.capture(lambda x: x * rng.random(3), backend="numpy")
    step(np.ones(3))
    with pytest.raises(CaptureError, match="another one in the call before"):
        step(np.ones(3))


def test_results_must_be_tensors():
    with pytest.raises(CaptureError, match="returns Tensors"):
        tg.capture(lambda x: "text", backend="numpy")(np.ones(3))


def test_capture_within_capture_is_one_step():
    inner = tg.capture(lambda x: x * 3, backend="numpy")
    outer = tg.capture(lambda x: inner(x) + 1, backend="numpy")
    assert [float(outer(np.array(2.0 * k))) for k in range(4)] == [1.0, 7.0, 13.0, 19.0]
    assert not inner.plans


def test_bad_arguments():
    with pytest.raises(ValueError, match="backend is 'gpu'"):
        tg.capture(lambda x: x, backend="gpu")
    with pytest.raises(ValueError, match="threads"):
        tg.capture(lambda x: x, threads=0)
    with pytest.raises(TypeError, match="takes a function"):
        tg.capture(3)
    with pytest.raises(CaptureError, match="nothing is captured yet"):
        _ = tg.capture(lambda x: x).source


def test_each_pattern_fires_and_changes_nothing_but_roundings():
    results = {}
    for rewrites in (True, False):
        pair = Pair("numpy", momentum=0.0)
        pair.captured = pair.steps[1] = tg.capture(
            pair.step_of(pair.models[1], pair.optimizers[1]), backend="numpy", rewrites=rewrites
        )
        for _ in range(6):
            batch = pair.batch(2)
            losses = [float(step(*batch)) for step in pair.steps]
        results[rewrites] = losses, pair.captured.plan.fired
        if not rewrites:
            assert losses[0] == losses[1]
            for one, two in zip(*(m.parameters() for m in pair.models), strict=True):
                np.testing.assert_array_equal(one.data, two.data)
    assert "scale_the_smaller" in results[True][1]
    assert "scale_the_smaller" not in results[False][1]
    assert {"share_common", "fold_constants"} & set(results[False][1])


def test_tracebacks_show_the_generated_source():
    pair = Pair("numpy")
    pair.train(3)
    x, labels = pair.batch()
    with pytest.raises(IndexError) as caught:
        pair.captured(x, labels + 9)
    assert "check_labels" in str(caught.traceback[-2].statement) + str(caught.traceback[-1].statement)


def test_an_exported_step_needs_numpy_alone(tmp_path):
    pair = Pair("numpy")
    pair.train(4)
    path = pair.captured.export(tmp_path / "backprop.py")
    batches = [pair.batch() for _ in range(3)]
    np.savez(
        tmp_path / "batches.npz", **{f"{n}{k}": a for n, b in enumerate(batches) for k, a in zip("xy", b, strict=True)}
    )
    program = (
        "import sys, numpy as np\n"
        "sys.modules['tinygrad_scratch'] = None\n"
        "import backprop\n"
        "b = np.load('batches.npz')\n"
        "print([float(backprop.step(b[f'{n}x'], b[f'{n}y'])[0]) for n in range(3)])\n"
    )
    made = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert eval(made.stdout) == [float(pair.captured(*batch)) for batch in batches]
    assert path.read_text().startswith('"""')


def test_a_broken_cache_is_made_anew(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv("TINYGRAD_SCRATCH_CACHE", str(tmp_path))

    def run():
        f = tg.capture(lambda x: np.exp(x) - 1, backend="numba")
        return [f(np.full(3, 0.5)).tolist() for _ in range(3)][-1]

    right = run()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run() == right


@pytest.mark.parametrize("backend", BACKENDS)
class TestQuickWay:
    """A replay goes the quick way; whatever changed since sends it the careful way, with the right numbers."""

    def made(self, backend):
        model = tg.nn.Linear(3, 2, dtype=np.float64, rng=0)
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)

        def step(x):
            loss = np.sum(model(x) ** 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return model, optimizer, tg.capture(step, backend=backend), step

    def test_what_misses(self, backend):
        x = np.ones((4, 3))
        model, optimizer, captured, _ = self.made(backend)
        for _ in range(4):
            captured(x)
        replay = captured.plan.replay
        assert replay(x) is not MISS
        for other in [(), (x, x), (x[:3],), (x.astype(np.float32),), (tg.Tensor(x),)]:
            assert replay(*other) is MISS
        with tg.no_grad():
            assert replay(x) is MISS
        model.weight.data = model.weight.data.copy(order="K")
        assert captured.plan.replay(x) is MISS
        calls = captured.plan.calls
        captured(x)
        assert captured.plan.replay(x) is not MISS
        assert captured.plan.calls == calls + 2
        optimizer.param_groups[0]["lr"] = 0.2  # looked up on the way
        assert captured.plan.replay(x) is not MISS
        optimizer.param_groups[0]["nesterov"] = True  # another step
        assert captured.plan.replay(x) is MISS

    def test_a_rate_that_is_an_array_and_changes_in_place(self, backend):
        x, rates = np.ones((4, 3)), [np.array(0.01), np.array(0.01)]
        runs = self.made(backend), self.made(backend)
        for (_, optimizer, *_), rate in zip(runs, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate
        for n in range(6):
            for rate in rates:
                rate[...] = 0.01 * (n + 1)
            first, second = runs[0][2](x), runs[1][3](x)
            np.testing.assert_allclose(first.numpy(), second.numpy(), rtol=1e-12)
