"""Arrays from outside are read by reference, whatever row, rule or composition reads them, and however they lie in memory.

A step without arguments reads arrays and Tensors that are refilled in place between its calls: answer and gradient follow.
"""

import re
from contextlib import contextmanager

import numpy as np
import pytest
from capturing import BACKENDS, arrays_of, assert_same, compiled_steps, tolerance_for  # noqa: F401
from function_forms import FORMS

import tinygrad_scratch as tg
from tinygrad_scratch import nn, registry
from tinygrad_scratch.errors import CaptureError
from tinygrad_scratch.nn import functional as F
from tinygrad_scratch.registry import OPS
from tinygrad_scratch.testing import samples
from tinygrad_scratch.testing.properties import cotangent_for

registry.load_all()
CALLS = 5
KINDS = {
    "array": lambda a: a,
    "tensor": tg.as_tensor,
    "view": lambda a: np.repeat(np.asarray(a)[..., None], 2, axis=-1)[..., 0],  # every second element of its memory
}


def follows(step, refill, backend="numpy", calls=CALLS):
    """The step, captured, gives after each refilling what it gives plainly; the captured step."""
    captured = tg.capture(step, backend=backend, rewrites=False)
    tolerance = tolerance_for(backend, False, np.float64)
    for n in range(calls):
        refill(n)
        with np.errstate(all="ignore"):
            expected, found = arrays_of(step()), arrays_of(captured())
        assert_same(found, expected, tolerance, f"call {n}")
    return captured


CASES = [
    pytest.param(name, i, kind, id=f"{name}-{i}-{kind}")
    for name, op in OPS.items()
    if len(op.rules) > 1 or op.variadic
    for i, (inputs, _) in enumerate(samples(op))
    for kind in KINDS
    if len(inputs) > 1 and inputs[0].size
]


@pytest.mark.parametrize(("row", "case", "kind"), CASES)
def test_every_row(row, case, kind):
    """Each operand in turn is the Tensor that is differentiated, all others come from outside."""
    op = OPS[row]
    inputs, options = list(samples(op))[case]
    shapes = tuple(x.shape for x in inputs)
    for place in range(len(inputs)):
        held = [KINDS[kind](x.copy()) for x in inputs]
        wanted = inputs[place].dtype.kind == "f"
        held[place] = tg.Tensor(inputs[place], requires_grad=wanted)

        def step(held=held, place=place, wanted=wanted):
            answer = op(*held, **options)
            if not wanted or not answer.requires_grad:
                return [answer]
            return [answer, *tg.gradients(answer, [held[place]], cotangent_for(answer))]

        def refill(n, held=held):
            drawn = op.domain.sample(np.random.default_rng(n), shapes, dict(options))[0]
            for target, values in zip(held, drawn, strict=True):
                getattr(target, "_data", target)[...] = values

        captured = follows(step, refill)
        assert [plan.calls for plan in captured.plans] == [CALLS - 2]


FORM_CASES = [
    pytest.param(f, arrays, id=f"{function.__name__}-{i}")
    for function, forms in FORMS.items()
    for i, (f, arrays) in enumerate(forms)
    if len(arrays) > 1
]
READ = {"full_like", "interp", "polydiv", "polyfit", "union1d", "polyadd", "append", "choose", "insert", "select"}
"""Functions that may have to read the values of an array: then that is compared, and a step that finds another each time says so."""


@pytest.mark.parametrize(("f", "arrays"), FORM_CASES)
def test_every_function_of_several_arrays(f, arrays, request):
    for place in range(len(arrays)):
        held = [np.array(a, np.float64) for a in arrays]
        held[place] = tg.Tensor(arrays[place], requires_grad=True)

        def step(held=held, place=place):
            try:
                answer = f(*held)
            except TypeError:  # NumPy does not ask this argument
                answer = np.sum(held[place])
            return [answer, *tg.gradients(np.sum(answer * answer), [held[place]])] if answer.requires_grad else [answer]

        def refill(n, held=held):
            for target, values in zip(held, arrays, strict=True):
                moved = values + 0.01 * n * np.cos(np.arange(values.size) * n).reshape(values.shape)
                getattr(target, "_data", target)[...] = moved

        try:
            follows(step, refill)
        except CaptureError:
            assert request.node.callspec.id.rpartition("-")[0] in READ


W = tg.Tensor(np.random.default_rng(1).normal(size=(5, 3)), requires_grad=True)
LOGITS = tg.Tensor(np.random.default_rng(2).normal(size=(2, 3, 4)), requires_grad=True)
ROWS = np.arange(5)


@contextmanager
def suppress_matching(error, pattern):
    """An error of that kind may be raised, if its message matches."""
    try:
        yield
    except error as raised:
        if not re.search(pattern, str(raised)):
            raise


USES = {
    # (a function of the outside array, the array's kind): what is differentiated is W, or LOGITS
    "cross entropy, labels": (lambda a: F.cross_entropy(W, a), "labels"),
    "softmax_cross_entropy, labels": (lambda a: tg.softmax_cross_entropy(W, a, "sum"), "labels"),
    "cross entropy, smoothed labels": (lambda a: F.cross_entropy(W, a, label_smoothing=0.1), "labels"),
    "cross entropy, ignored labels": (lambda a: F.cross_entropy(W, a, ignore_index=1), "labels"),
    "cross entropy, labels of pixels": (lambda a: F.cross_entropy(LOGITS, a), "labels (2, 4)"),
    "cross entropy, probabilities": (lambda a: F.cross_entropy(W, a), "(5, 3)"),
    "cross entropy, smoothed probabilities": (lambda a: F.cross_entropy(W, a, label_smoothing=0.2), "(5, 3)"),
    "cross entropy, float32 probabilities": (lambda a: F.cross_entropy(W, a), "float32 (5, 3)"),
    "cross entropy, weights": (lambda a: F.cross_entropy(W, np.array([0, 2, 1, 1, 0]), weight=a), "(3,)"),
    "cross entropy, float32 weights": (lambda a: F.cross_entropy(W, np.array([0, 2, 1, 1, 0]), weight=a), "float32 (3,)"),
    "cross entropy, weights and smoothing": (lambda a: F.cross_entropy(W, np.array([0, 2, 1, 1, 0]), weight=a, label_smoothing=0.1), "(3,)"),
    "nll, labels": (lambda a: F.nll_loss(tg.log_softmax(W), a), "labels"),
    "nll, weights": (lambda a: F.nll_loss(tg.log_softmax(W), np.array([0, 2, 1, 1, 0]), weight=a), "(3,)"),
    "bce, targets": (lambda a: F.binary_cross_entropy(tg.sigmoid(W), a), "(5, 3)"),
    "bce, integer targets": (lambda a: F.binary_cross_entropy(tg.sigmoid(W), a), "flags (5, 3)"),
    "bce, weight": (lambda a: F.binary_cross_entropy(tg.sigmoid(W), np.ones((5, 3)), weight=a), "(5, 3)"),
    "bce with logits, targets": (lambda a: F.binary_cross_entropy_with_logits(W, a), "(5, 3)"),
    "bce with logits, integer targets": (lambda a: F.binary_cross_entropy_with_logits(W, a), "flags (5, 3)"),
    "bce with logits, boolean targets": (lambda a: F.binary_cross_entropy_with_logits(W, a), "mask"),
    "bce with logits, weight": (lambda a: F.binary_cross_entropy_with_logits(W, np.ones((5, 3)), weight=a), "(3,)"),
    "bce with logits, pos_weight": (lambda a: F.binary_cross_entropy_with_logits(W, np.ones((5, 3)), pos_weight=a), "(3,)"),
    "mse": (lambda a: F.mse_loss(W, a), "(5, 3)"),
    "mse, float32": (lambda a: F.mse_loss(W, a), "float32 (5, 3)"),
    "mse, each": (lambda a: F.mse_loss(W, a, "none"), "(5, 3)"),
    "l1": (lambda a: F.l1_loss(W, a), "(5, 3)"),
    "huber": (lambda a: F.huber_loss(W, a), "(5, 3)"),
    "smooth l1": (lambda a: F.smooth_l1_loss(W, a), "(5, 3)"),
    "kl": (lambda a: F.kl_div(tg.log_softmax(W), a, "batchmean"), "(5, 3)"),
    "kl, logarithms": (lambda a: F.kl_div(tg.log_softmax(W), a, log_target=True), "(5, 3)"),
    "loss modules": (lambda a: nn.CrossEntropyLoss(label_smoothing=0.1)(W, a), "labels"),
    "a layer of it": (lambda a: nn.Linear(3, 3, rng=0, dtype=np.float64)(a) @ W.T, "(5, 3)"),
    "a network of it": (lambda a: nn.Sequential(nn.LayerNorm(3, dtype=np.float64), nn.GELU(), nn.ELU())(a) * W, "(5, 3)"),
    "batch normalisation of it": (lambda a: nn.BatchNorm1d(3, dtype=np.float64, track_running_stats=False)(a) * W, "(5, 3)"),
    "activations of it": (lambda a: (F.gelu(a) + F.silu(a) + F.elu(a)) * W, "(5, 3)"),
    "embedding of it": (lambda a: nn.Embedding(3, 3, rng=0, dtype=np.float64)(a) * W, "labels"),
    "sum and product": (lambda a: (a + W) * a - a / (W + 9), "(5, 3)"),
    "power of it": (lambda a: (W * W + 1) ** a, "(5, 3)"),
    "it to a power": (lambda a: a**W, "(5, 3)"),
    "float32 in a product": (lambda a: W.T @ a, "float32 (5, 3)"),
    "how many": (lambda a: W * len(a) * a.size * np.shape(a)[0], "(5, 3)"),
    "integers in a product": (lambda a: W * a, "labels (5, 3)"),
    "a mask in a product": (lambda a: W * a, "mask"),
    "one minus a mask": (lambda a: W * (1 - a), "flags (5, 3)"),
    "not a mask": (lambda a: W * ~a, "mask"),
    "where": (lambda a: np.where(a, W, -W), "mask"),
    "where, other values": (lambda a: np.where(W > 0, W, a), "(5, 3)"),
    "clip, lower": (lambda a: np.clip(W, a - 1, None), "(5, 3)"),
    "clip, both": (lambda a: np.clip(W, -a, a), "(5, 3)"),
    "clip, method": (lambda a: W.clip(-a, a), "(3,)"),
    "clip, by itself": (lambda a: np.clip(W, a, 2.0), "(5, 3)"),
    "maximum": (lambda a: np.maximum(W, a), "(5, 3)"),
    "average": (lambda a: np.average(W, axis=0, weights=a), "(5,)"),
    "average, float32": (lambda a: np.average(W, axis=0, weights=a), "float32 (5,)"),
    "sum, where": (lambda a: np.sum(W, where=a), "mask"),
    "mean, where": (lambda a: np.mean(W, axis=0, where=a), "mask"),
    "interp": (lambda a: np.interp(W, [-3.0, 0.0, 3.0], a), "(3,)"),
    "polyval": (lambda a: np.polyval(a, W), "(3,)"),
    "einsum": (lambda a: np.einsum("ij,ij->i", W, a), "(5, 3)"),
    "solve": (lambda a: np.linalg.solve(a.T @ a + np.eye(3), W.T), "(5, 3)"),
    "solve, of Tensors": (lambda a: np.linalg.solve(tg.as_tensor(a).T @ a + np.eye(3), W.T), "(5, 3)"),
    "concatenate": (lambda a: np.concatenate([W, a]), "(5, 3)"),
    "stack of a list": (lambda a: np.stack([W, a, W]), "(5, 3)"),
    "rows by index": (lambda a: W[a], "labels"),
    "elements by index": (lambda a: W[ROWS, a], "labels"),
    "take": (lambda a: np.take(W, a, axis=1), "labels"),
    "take along": (lambda a: np.take_along_axis(W, a[:, None], axis=1), "labels"),
    "put": (lambda a: W.at[a].set(0.5), "labels"),
    "put values": (lambda a: W.at[1].set(a), "(3,)"),
    "add at": (lambda a: W.at[a].add(2.0), "labels"),
    "as a Tensor": (lambda a: tg.as_tensor(a) * W, "(5, 3)"),
    "as a Tensor of another dtype": (lambda a: tg.as_tensor(a, np.float64) * W, "float32 (5, 3)"),
    "copied": (lambda a: tg.Tensor(a) * W, "(5, 3)"),
    "copied to another dtype": (lambda a: tg.Tensor(a, np.float64) * W, "labels (5, 3)"),
    "copied by NumPy": (lambda a: np.copy(a) * W, "(5, 3)"),
    "a gradient": (lambda a: tg.gradients(np.tanh(W), [W], a)[0], "(5, 3)"),
    "a float32 gradient": (lambda a: tg.gradients(np.tanh(W), [W], a)[0], "float32 (5, 3)"),
    "a tangent": (lambda a: tg.jvp(np.tanh, (W,), (a,))[1], "(5, 3)"),
    "a cotangent": (lambda a: tg.vjp(np.tanh, W)[1](a)[0], "(5, 3)"),
    "what is differentiated": (lambda a: tg.grad(lambda v: np.sum(np.sin(v) * W.detach()))(a) * W, "(5, 3)"),
    "a Hessian's product": (lambda a: tg.hvp(lambda v: np.sum(v**3), (W,), (a,)), "(5, 3)"),
    "a view of it": (lambda a: W * a[::-1], "(5, 3)"),
    "its transpose": (lambda a: W @ a.T, "(5, 3)"),
    "one row of it": (lambda a: W * a[2], "(5, 3)"),
    "what NumPy makes of it": (lambda a: W * np.exp(a), "(5, 3)"),
    "a number of it": (lambda a: W * float(a.max()), "(5, 3)"),
    "a branch on it": (lambda a: W * 2 if a.sum() > 0 else W, "(5, 3)"),
    "how often": (lambda a: np.repeat(W, a, axis=0), "labels"),
    "a mask's elements": (lambda a: W[a], "mask"),
    "dropout by hand": (lambda a: W * (a / 0.5), "flags (5, 3)"),
}  # fmt: skip
COMPARED = {
    "one minus a mask", "not a mask", "clip, lower", "clip, both", "clip, method", "copied by NumPy", "what NumPy makes of it", "solve",
    "a number of it", "a branch on it", "how often", "a mask's elements", "take along", "polyval", "interp", "a layer of it",
    "dropout by hand",
}  # fmt: skip
"""Uses of which the program, or NumPy, reads the elements itself: what it holds is compared, and the step recorded again."""


def drawn(kind, n):
    rng = np.random.default_rng(n + 10)
    dtype = np.float32 if "float32" in kind else np.float64
    shape = eval(kind[kind.index("(") :]) if "(" in kind else (5,)
    if kind == "mask":
        return rng.random((5, 3)) < 0.5
    if "labels" in kind:
        return rng.integers(0, 3, shape)
    return rng.integers(0, 2, shape) if "flags" in kind else rng.uniform(0.1, 0.9, shape).astype(dtype)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("lying", ["array", "tensor", "view"])
def test_uses(use, lying):
    f, kind = USES[use]
    held, wanted = KINDS[lying](drawn(kind, 0).copy()), LOGITS if "pixels" in use else W

    def step():
        answer = f(held)
        return [answer, *tg.gradients(np.sum(answer * answer), [wanted] if answer.requires_grad else [])]

    def refill(n):
        getattr(held, "_data", held)[...] = drawn(kind, n)

    if use not in COMPARED:
        captured = follows(step, refill)
        assert [plan.calls for plan in captured.plans] == [CALLS - 2]
        return
    with suppress_matching(CaptureError, "NumPy alone|of a mask are True|reads the value"):
        follows(step, refill)


@pytest.mark.parametrize("use", sorted(COMPARED))
def test_what_is_compared_may_change_now_and_then(use):
    f, kind = USES[use]
    held = drawn(kind, 0).copy()
    follows(lambda: [f(held)], lambda n: held.__setitem__(..., drawn(kind, n // 4)), calls=16)


@pytest.mark.parametrize("use", USES)
def test_uses_compiled(use):
    pytest.importorskip("numba")
    f, kind = USES[use]
    if use in COMPARED or use in ("solve, of Tensors", "a mask's elements"):
        return
    held = drawn(kind, 0).copy()
    follows(lambda: [f(held)], lambda n: held.__setitem__(..., drawn(kind, n)), backend="numba", calls=4)
