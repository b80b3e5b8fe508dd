"""What is promised of every row of the table, one function a promise. tests/test_ops.py is OPS x PROPERTIES.

Each takes a row, inputs (arrays) and options, and raises AssertionError where the promise is broken.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.domains import Case
from tinygrad_scratch.errors import describe
from tinygrad_scratch.registry import ANSWERS, Op
from tinygrad_scratch.tensor import Tensor, as_tensor
from tinygrad_scratch.testing.differences import check_grad
from tinygrad_scratch.transforms import gradients

Check = Callable[[Op, list[Array], dict[str, Any]], None]

PROPERTIES: dict[str, tuple[Check, Callable[[Op], bool]]] = {}
"""name -> (check, whether it says anything about a row). In the order of their definition below."""


def holds_for(applies: Callable[[Op], bool]) -> Callable[[Check], Check]:
    """Decorator: a property of the rows for which `applies` is true."""

    def decorate(check: Check) -> Check:
        PROPERTIES[check.__name__] = (check, applies)
        return check

    return decorate


def check_op(op: Op, seed: Any = 0) -> None:
    """Assert all that is promised of a row, at every case of its domain.

    AssertionError (or whatever the row itself raised) carries the property, the inputs and the options in a note.

    >>> import tinygrad_scratch as tg
    >>> check_op(tg.OPS["tanh"])
    """
    for inputs, options in samples(op, seed):
        for name, (check, applies) in PROPERTIES.items():
            if not applies(op):
                continue
            try:
                check(op, inputs, options)
            except Exception as error:
                error.add_note(f"property {name!r} of {op!r} with {', '.join(map(describe, inputs))} and {options}")
                raise


def samples(op: Op, seed: Any = 0) -> Iterator[tuple[list[Array], dict[str, Any]]]:
    """(inputs, options) at every case of a row's domain; where it has none, at a few shapes that broadcast."""
    generator = np.random.default_rng(seed)
    n = len(op.rules)
    free: list[Case] = [
        (((2, 3),) * n, {}),
        (((2, 1), (3,), ())[:n], {}),
        (((),) * n, {}),
        (((0, 3), (1,), (2, 1, 1))[:n], {}),
    ]
    for shapes, options in op.domain.cases or free:
        yield op.domain.sample(generator, shapes, dict(options))


def _always(op: Op) -> bool:
    return True


def differentiable(op: Op) -> bool:
    return op.differentiable


def _elementwise(op: Op) -> bool:
    return op.kind == "elementwise"


def _fits(op: Op) -> bool:
    """Several inputs that broadcast against each other."""
    return op.kind == "elementwise" and len(op.rules) > 1


def _equal(found: Any, expected: Any, what: str, rtol: float = 0.0) -> None:
    """Same shape, dtype and values (to `rtol`, with NaN equal to itself)."""
    found, expected = getattr(found, "_data", found), np.asarray(expected)
    assert found.shape == expected.shape, f"{what}: shape {found.shape} instead of {expected.shape}"
    assert found.dtype == expected.dtype, f"{what}: dtype {found.dtype} instead of {expected.dtype}"
    close = np.isclose(found, expected, rtol=rtol, atol=rtol, equal_nan=True)
    assert close.all(), f"{what}: {found} instead of {expected}"


def _tensors(inputs: Sequence[Array]) -> list[Any]:
    return [Tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]


def _run(
    op: Callable[..., Any], inputs: Sequence[Any], options: dict[str, Any], lift: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """The answer, and the gradients of the inputs that want one, for the cotangent 1, 2, 3 ... / size."""
    output = op(*inputs, **options)
    assert isinstance(output, Tensor), f"gives {describe(output)} instead of a Tensor"
    wanted = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    if not output.requires_grad:
        return output, []
    return output, gradients(output, wanted, cotangent_for(output), create_graph=lift)


def cotangent_for(output: Any) -> Array:
    """A cotangent that tells the elements of `output` apart."""
    count = np.arange(1.0, output.size + 1).reshape(output.shape)
    return np.asarray(count / max(output.size, 1), output.dtype)


@holds_for(_always)
def value(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """On arrays and on Tensors it is the same function, and it is the NumPy functions it answers for."""
    expected = np.asarray(op.fn(*inputs, **options))
    plain = op(*inputs, **options)
    assert not isinstance(plain, Tensor), "arrays in must give arrays out"
    _equal(np.asarray(plain), expected, "on arrays")
    _equal(op(*_tensors(inputs), **options), expected, "on Tensors")
    for function in (f for f, answer in ANSWERS.items() if answer is op):
        more, named = _placed(function, len(inputs), options)
        answer = function(*_tensors(inputs), *more, **named)
        assert isinstance(answer, Tensor), f"np.{function.__name__} of Tensors gives {type(answer).__name__}"
        _equal(answer, function(*inputs, *more, **named), f"np.{function.__name__}", rtol=1e-14)


def _placed(function: Callable[..., Any], arrays: int, options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The options that `function` takes by position only (np.astype), and the others."""
    try:
        names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_ONLY][
            arrays:
        ]
    except (TypeError, ValueError):
        names = []
    return [options[name] for name in names if name in options], {k: v for k, v in options.items() if k not in names}


@holds_for(differentiable)
def gradient(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """Its rules are its derivatives."""
    check_grad(lambda *x: op(*x, **options), *inputs)


@holds_for(differentiable)
def second_order(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """The derivatives of its rules are its second derivatives."""
    check_grad(lambda *x: op(*x, **options), *inputs, order=2)


@holds_for(differentiable)
def lifted(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """Fed Tensors, its rules give what they give on arrays: they are made of rows."""
    _, raw = _run(op, _tensors(inputs), options)
    _, recorded = _run(op, _tensors(inputs), options, lift=True)
    for i, (a, b) in enumerate(zip(raw, recorded, strict=True)):
        assert isinstance(b, Tensor), f"gradient {i}: {type(b).__name__}"
        _equal(b, a._data, f"gradient {i} by the lifted rule", rtol=1e-12)


@holds_for(lambda op: not op.differentiable)
def no_gradient(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """Without a rule, the answer asks for no gradient, and there is none: it is no real number, or does not move."""
    output = op(*_tensors(inputs), **options)
    assert not output.requires_grad
    moved = [x + 1e-3 if x.dtype.kind == "f" else x for x in inputs]
    if output.dtype.kind == "f":
        _equal(op.fn(*moved, **options), output._data, "no rule, but a derivative: at inputs moved by 0.001")


@holds_for(lambda op: _fits(op) and op.differentiable)
def broadcasting(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """Gradients of inputs that are broadcast are those of their copies, added up."""
    output, small = _run(op, _tensors(inputs), options)
    copies = [np.broadcast_to(x, output.shape) for x in inputs]
    _, large = _run(op, _tensors(copies), options)
    floats = [x for x in inputs if x.dtype.kind == "f"]
    for i, (g, full, x) in enumerate(zip(small, large, floats, strict=True)):
        extra = output.ndim - x.ndim
        summed = full._data.sum(axis=tuple(range(extra)))
        ones = tuple(k for k in range(x.ndim) if x.shape[k] == 1)
        _equal(g, summed.sum(axis=ones, keepdims=True), f"gradient {i}", rtol=1e-12)


@holds_for(differentiable)
def float32(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """float32 and float16 in: the same out, and in the gradients, raw and lifted; values that agree with float64's."""
    output, exact = _run(op, _tensors(inputs), options)
    for dtype, rtol in ((np.float32, 1e-3), (np.float16, 0.3)):
        narrow = [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]
        for lift in (False, True):
            answer, found = _run(op, _tensors(narrow), options, lift)
            if "dtype" not in options:
                _equal(answer, output._data.astype(dtype), f"answer from {dtype.__name__}", rtol)
            for i, (g, expected) in enumerate(zip(found, exact, strict=True)):
                _equal(g, expected._data.astype(dtype), f"gradient {i} from {dtype.__name__}", rtol)


@holds_for(lambda op: op.differentiable and (op.variadic or len(op.rules) > 1))
def mixed_dtypes(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """float32 beside float64: NumPy's dtype out, and each gradient in its own input's dtype."""
    for i in (i for i, x in enumerate(inputs) if x.dtype.kind == "f"):
        mixed = [x.astype(np.float32) if i == j else x for j, x in enumerate(inputs)]
        output, found = _run(op, _tensors(mixed), options)
        assert output.dtype == np.asarray(op.fn(*mixed, **options)).dtype
        for g, x in zip(found, [x for x in mixed if x.dtype.kind == "f"], strict=True):
            assert g.dtype == x.dtype, f"the gradient of a {x.dtype} is {g.dtype}"


@holds_for(lambda op: isinstance(op.fn, np.ufunc) and len(op.rules) == 2 and None not in op.rules)
def scalars(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """Python numbers are weak on either side: float32 stays float32, and the gradient is that of an array of it."""
    a, b = (x.astype(np.float32) for x in op.domain.sample(np.random.default_rng(0), ((3,), (3,)), options)[0])
    for pair, with_array in (
        ((Tensor(a, requires_grad=True), float(b[0])), b[0]),
        ((float(a[0]), Tensor(b, requires_grad=True)), a[0]),
    ):
        output, (found,) = _run(op, pair, options)
        assert output.dtype == found.dtype == np.float32, f"{output.dtype}, gradient {found.dtype}"
        arrays = [x if isinstance(x, Tensor) else np.full(3, with_array) for x in pair]
        expected, (other,) = _run(op, arrays, options)
        _equal(output, expected._data, "answer", 1e-6)
        _equal(found, other._data, "gradient", 1e-6)


@holds_for(differentiable)
def rules_stay_narrow(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """Its rules compute in float32 where the inputs are float32: the engine would cast, but at twice the time."""
    narrow = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in inputs]
    answer = np.asarray(op.fn(*narrow, **options))
    if answer.dtype != np.float32:
        return
    for i, part in contributions(op, cotangent_for(answer), answer, narrow, options):
        assert part.dtype == np.float32, f"the rule of input {i} gives {part.dtype}"


def contributions(op: Op, g: Any, y: Any, inputs: Sequence[Any], options: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """(i, what the rule of input i gives) before the engine fits it, for the floating-point inputs that have a rule."""
    for i, x in enumerate(inputs):
        rule = op.rules[0] if op.variadic else op.rules[i]
        if rule is not None and x.dtype.kind == "f":
            yield i, rule(g, y, *inputs, **options)(i) if op.variadic else rule(g, y, *inputs, **options)


def _layouts(x: Array) -> Iterator[tuple[str, Array]]:
    every: Any = (..., *(slice(None, None, 2),) * x.ndim)
    back: Any = (..., *(slice(None, None, -1),) * x.ndim)
    spread = np.zeros(tuple(2 * n for n in x.shape), x.dtype)[every]
    spread[...] = x
    flipped = x[back].copy()[back]
    frozen = x.copy()
    frozen.flags.writeable = False
    yield from (("strided", spread), ("Fortran order", x.copy(order="F")), ("reversed", flipped), ("read-only", frozen))
    yield "big-endian", x.astype(x.dtype.newbyteorder(">"))


@holds_for(_always)
def layouts(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """However its inputs lie in memory, in either byte order, read-only or not: the same answer and gradients."""
    output, expected = _run(op, _tensors(inputs), options)
    for variants in zip(*map(_layouts, inputs), strict=True):
        tensors = [as_tensor(x) for _, x in variants]
        for t in tensors:
            t.requires_grad = t.dtype.kind == "f"
        answer, found = _run(op, tensors, options)
        _equal(answer, output._data, variants[0][0], rtol=1e-12)
        for g, h in zip(found, expected, strict=True):
            _equal(g, h._data, f"gradient, {variants[0][0]}", rtol=1e-12)


@holds_for(_always)
def operands_unchanged(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """Forward and backward write into no input, answer or cotangent, and gradients share no memory with any."""
    before = [x.copy() for x in inputs]
    tensors = [as_tensor(x) for x in inputs]
    for t in tensors:
        t.requires_grad = t.dtype.kind == "f"
    output = op(*tensors, **options)
    answer, cotangent = output._data.copy(), cotangent_for(output)
    kept = cotangent.copy()
    for lift in (False, True) if output.requires_grad else ():
        for g in gradients(output, [t for t in tensors if t.requires_grad], cotangent, create_graph=lift):
            shared = [x for x in (*inputs, cotangent, output._data) if np.may_share_memory(g._data, x)]
            assert lift or not shared, f"a gradient shares memory with {describe(shared[0])}"
    for x, y in (*zip(inputs, before, strict=True), (output._data, answer), (cotangent, kept)):
        _equal(x, y, "changed")


@holds_for(lambda op: op.variadic or len(op.rules) > 1)
def dispatch(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """Tensors and arrays mix in every order, by the row and by the NumPy functions: Tensors out, the same gradients."""
    expected, gradients_of_all = _run(op, _tensors(inputs), options)
    floats = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]
    functions: list[Any] = [op, *(f for f, answer in ANSWERS.items() if answer is op)]
    for function, chosen in product(functions, product((True, False), repeat=len(inputs))):
        if not any(chosen):
            continue
        mixed = [Tensor(x, requires_grad=x.dtype.kind == "f") if c else x for x, c in zip(inputs, chosen, strict=True)]
        output, found = _run(function, mixed, options)
        _equal(output, expected._data, f"{function.__name__} with Tensors at {chosen}", rtol=1e-14)
        wanted = [g for i, g in zip(floats, gradients_of_all, strict=False) if chosen[i]]
        for g, h in zip(found, wanted, strict=True):
            _equal(g, h._data, f"gradient of {function.__name__} with Tensors at {chosen}", rtol=1e-12)


@holds_for(lambda op: op.reference is not None)
def reference(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """A fused row is its reference composition, in value, gradient and the gradient of that."""
    assert op.reference is not None
    output, found = _run(op, _tensors(inputs), options)
    expected, other = _run(op.reference, _tensors(inputs), options)
    _equal(output, expected._data, "value", rtol=1e-9)
    for i, (g, h) in enumerate(zip(found, other, strict=True)):
        _equal(g, h._data, f"gradient {i}", rtol=1e-9)


@holds_for(_elementwise)
def elements_are_independent(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """kind "elementwise": an element of the answer comes from that element of each input, whatever the others are."""
    output = np.asarray(op.fn(*inputs, **options))
    assert output.shape == np.broadcast_shapes(*(x.shape for x in inputs))
    flat = [np.broadcast_to(x, output.shape).reshape(-1) for x in inputs]
    order = np.random.default_rng(0).permutation(output.size)[: (output.size + 1) // 2]
    _equal(
        np.asarray(op.fn(*(x[order] for x in flat), **options)), output.reshape(-1)[order], "a selection", rtol=1e-13
    )


@holds_for(lambda op: op.kind in ("linear", "multilinear"))
def linear_in_each(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """kind "linear": linear in its real inputs together; "multilinear": in each. So forward mode may feed it tangents."""
    real = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]
    others = [x[(slice(None, None, -1),) * x.ndim] + 1 if x.dtype.kind == "f" else x for x in inputs]
    for moved in [real] if op.kind == "linear" else [[i] for i in real]:

        def at(a: float, b: float, moved: list[int] = moved) -> Any:
            mixed = [a * x + b * z if i in moved else x for i, (x, z) in enumerate(zip(inputs, others, strict=True))]
            return op.fn(*mixed, **options)

        found, expected = np.asarray(at(2, -3)), np.asarray(2 * at(1, 0) - 3 * at(0, 1))
        assert np.allclose(found, expected, rtol=1e-10, atol=1e-10), f"not linear in {moved}"


@holds_for(_elementwise)
def empty_and_0d(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """Elementwise rows take 0-d and empty inputs, and give answers and gradients of those shapes."""
    for shape in ((), (0,), (2, 0)):
        drawn, _ = op.domain.sample(np.random.default_rng(0), (shape,) * len(inputs), options)
        output, found = _run(op, _tensors(drawn), options)
        assert type(output._data) is np.ndarray, "a 0-d answer must be an array"
        assert output.shape == shape, f"{output.shape} instead of {shape}"
        for g in found:
            assert g.shape == shape, f"gradient: {g.shape} instead of {shape}"
