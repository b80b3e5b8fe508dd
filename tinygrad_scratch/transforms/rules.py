"""Derivatives that the user decides: none (stop_gradient), recomputed ones (checkpoint), and rules of one's own."""

from collections.abc import Callable
from functools import wraps
from threading import local
from typing import Any

import numpy as np

from tinygrad_scratch import record
from tinygrad_scratch._typing import Array
from tinygrad_scratch.backward import pull
from tinygrad_scratch.context import enable_grad, is_grad_enabled, listening, set_grad_enabled, state
from tinygrad_scratch.domains import Domain, reals
from tinygrad_scratch.registry import Op, register
from tinygrad_scratch.tensor import Tensor, as_tensor
from tinygrad_scratch.transforms.common import tensors_of
from tinygrad_scratch.trees import leaves, ravel, rebuild


def stop_gradient(tree: Any) -> Any:
    """The same values, as constants: no gradient and no tangent passes. Arrays, Tensors, lists, tuples and dicts of them.

    >>> import tinygrad_scratch as tg
    >>> tg.grad(lambda x: x * stop_gradient(x))(3.0)
    np.float64(3.0)
    """
    return rebuild(tree, [x.detach() if isinstance(x, Tensor) else x for x in leaves(tree)])


# -- recompute instead of keep -------------------------------------------------------------------------------------------


class _Outside:
    """A listener that notes which Tensors of outside a function uses, and the states of generators that it draws from."""

    lift = False

    def __init__(self) -> None:
        self.grad = False
        self.tensors: dict[int, Tensor] = {}
        self.generators: dict[int, tuple[np.random.Generator, Any]] = {}

    def record(self, op: Any, values: Any, options: Any, answer: Array, parents: tuple[Any, ...]) -> Array:
        self.tensors.update({id(p): p for p in parents if p is not None and p.requires_grad})
        return answer

    def drawing(self, rng: "np.random.Generator") -> None:  # quoted: naming it would import numpy.random, 10 ms
        self.generators.setdefault(id(rng), (rng, rng.bit_generator.state))


class _again:  # noqa: N801
    """Context manager: generators draw what they drew before; afterwards they go on where they were."""

    def __init__(self, generators: "dict[int, tuple[np.random.Generator, Any]]"):
        self.generators = generators

    def __enter__(self) -> None:
        self.now = [rng.bit_generator.state for rng, _ in self.generators.values()]
        for rng, before in self.generators.values():
            rng.bit_generator.state = before

    def __exit__(self, *_: Any) -> None:
        for (rng, _), state_now in zip(self.generators.values(), self.now, strict=True):
            rng.bit_generator.state = state_now


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, whose inside is not kept for backward but computed again in it: less memory, one more forward.

    `f` takes and returns Tensors (or lists, tuples and dicts of them) and may use other Tensors, parameters say. It must
    do the same when called again: what it draws by tg.random (dropout) is drawn again. Within a captured step, and under
    detect_anomaly, it is `f` itself: capture plans the memory of the whole step.

    >>> import tinygrad_scratch as tg
    >>> tg.grad(checkpoint(lambda x: np.sin(np.sin(x))))(0.5) == tg.grad(lambda x: np.sin(np.sin(x)))(0.5)
    np.True_
    """

    @wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not is_grad_enabled() or not isinstance(state.mode, bool):
            return f(*args, **kwargs)
        outside = _Outside()
        with listening(outside):
            output = f(*args, **kwargs)
        values = tensors_of(output)
        outside.tensors.update({id(x): x for x in values if x.requires_grad})
        if not outside.tensors:  # nothing in it has a gradient
            return output
        return _kept(lambda: f(*args, **kwargs), outside, output, values)

    return wrapped


def _kept(again: Callable[[], Any], outside: _Outside, output: Any, values: list[Tensor]) -> Any:
    """The output of a checkpointed function as Tensors of a graph that goes straight to what it used of outside."""
    used = list(outside.tensors.values())
    single = len(values) == 1 and output is values[0]
    flat, back = (output, None) if single else ravel(output)

    def rule(g: Any, y: Any, *inputs: Any) -> Callable[[int], Any]:
        lift, kept = isinstance(g, Tensor), is_grad_enabled()
        with enable_grad(), _again(outside.generators):
            recomputed = again()
            root = recomputed if single else ravel(recomputed)[0]
        with set_grad_enabled(kept and lift):
            found = pull(root, g, lift, stop=set(outside.tensors)) if root.requires_grad else {}
        zero = [np.zeros(x.shape, x.dtype) if id(x) not in found else None for x in used]
        return lambda i: found[id(used[i])][1] if zero[i] is None else as_tensor(zero[i]) if lift else zero[i]

    op = Op(lambda *inputs: flat._data, (rule,), "general", reals, name="checkpoint", variadic=True)
    record.bind(op)
    kept = op(*used)
    return kept if back is None else back(kept)


# -- rules of one's own --------------------------------------------------------------------------------------------------


def custom_vjp(
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[..., Any],
    name: str | None = None,
    domain: Domain = reals,
) -> Op:
    """A row whose derivative is the user's own, and may use what forward found on the way.

    forward: (*arrays, **options) -> (answer, saved), where `saved` is anything.
    backward: (g, y, saved, *arrays, **options) -> the cotangent of the one array, or a tuple of one for each.
    name: forward's, if left out. ValueError if a row has it. domain: where check_op draws its inputs.

    The row is a general one of the table: ``testing.check_op`` holds it to all that rows promise. Gradients of gradients
    and forward mode run both functions on Tensors, so for them both must be written in NumPy functions that are rows.

    >>> import tinygrad_scratch as tg
    >>> def forward(x):
    ...     size = np.sqrt(np.sum(x * x))
    ...     return size, x / size
    >>> length = custom_vjp(forward, lambda g, y, direction, x: g * direction, name="length")
    >>> tg.grad(length)(np.array([3.0, 4.0]))
    array([0.6, 0.8])
    """

    latest = local()

    def answer(*arrays: Any, **options: Any) -> Any:
        options.pop(_SAVED, None)
        y, latest.saved = forward(*arrays, **options)
        return y

    def rule(g: Any, y: Any, *arrays: Any, **options: Any) -> Callable[[int], Any]:
        kept = options.pop(_SAVED, None)  # a captured step keeps none; Tensors must see how it depends on them
        fresh = kept is None or any(isinstance(x, Tensor) for x in arrays)
        saved = forward(*arrays, **options)[1] if fresh else kept[0]
        parts = backward(g, y, saved, *arrays, **options)
        return lambda i: parts[i] if isinstance(parts, tuple) else parts

    def keeping(*arrays: Any, **options: Any) -> Any:
        y = plain(*arrays, **options)
        if isinstance(y, Tensor) and y._node is not None:
            op, parents, values, given = y._node
            y._node = (op, parents, values, {**given, _SAVED: (latest.saved,)})
        latest.saved = None
        return y

    op = register(Op(answer, (rule,), "general", domain, name=name or forward.__name__, variadic=True), ())
    plain, op.apply = op.apply, keeping
    return op


_SAVED = "saved by forward"
