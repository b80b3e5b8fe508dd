"""Hypothesis strategies for arrays, Tensors and the inputs of a row. Imported on demand: Hypothesis is optional."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices, integer_array_indices, mutually_broadcastable_shapes
from hypothesis.extra.numpy import arrays as array_of

from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.domains import Domain, reals
from tinygrad_scratch.registry import Op
from tinygrad_scratch.tensor import Tensor

Inputs = tuple[list[Array], dict[str, Any]]

_SEEDS = st.integers(0, 2**32 - 1)


def _shapes(count: int, max_dims: int, max_side: int) -> st.SearchStrategy[tuple[Shape, ...]]:
    """`count` shapes that broadcast against each other, 0-d and empty ones among them."""
    if count == 1:
        return st.tuples(array_shapes(min_dims=0, max_dims=max_dims, min_side=0, max_side=max_side))
    groups = mutually_broadcastable_shapes(num_shapes=count, max_dims=max_dims, min_side=0, max_side=max_side)
    return groups.map(lambda group: group.input_shapes)


def _drawn(domain: Domain, seed: int, shapes: tuple[Shape, ...], options: dict[str, Any], dtype: Any) -> Inputs:
    inputs, options = domain.sample(np.random.default_rng(seed), shapes, dict(options))
    return [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs], options


def arrays(
    count: int = 1, *, domain: Domain = reals, dtype: Any = np.float64, max_dims: int = 3, max_side: int = 3
) -> st.SearchStrategy[list[Array]]:
    """Lists of `count` arrays whose shapes broadcast against each other, with values from `domain`.

    >>> from hypothesis import given
    >>> @given(arrays(2))
    ... def test(pair):
    ...     assert np.add(*pair).shape == np.broadcast_shapes(*(x.shape for x in pair))
    >>> test()
    """
    groups = st.tuples(_SEEDS, _shapes(count, max_dims, max_side))
    return groups.map(lambda drawn: _drawn(domain, *drawn, {}, dtype)[0])


def tensors(count: int = 1, *, requires_grad: bool = True, **about: Any) -> st.SearchStrategy[list[Tensor]]:
    """As arrays(), but Tensors (of floating point, which require gradients unless told otherwise).

    >>> from hypothesis import given
    >>> @given(tensors(2))
    ... def test(pair):
    ...     assert (pair[0] * pair[1]).requires_grad
    >>> test()
    """
    return arrays(count, **about).map(lambda group: [Tensor(x, requires_grad=requires_grad) for x in group])


def op_inputs(op: Op, *, dtype: Any = np.float64, max_dims: int = 3, max_side: int = 3) -> st.SearchStrategy[Inputs]:
    """(inputs, options) for a row: one of its domain's cases, or shapes that broadcast, with values from its domain.

    >>> import tinygrad_scratch as tg
    >>> from hypothesis import given
    >>> @given(op_inputs(tg.OPS["sum"]))
    ... def test(drawn):
    ...     inputs, options = drawn
    ...     assert np.allclose(tg.OPS["sum"](*inputs, **options), np.sum(*inputs, **options))
    >>> test()
    """
    domain = op.domain
    if domain.cases:
        cases = st.sampled_from(domain.cases)
    else:
        cases = _shapes(len(op.rules), max_dims, max_side).map(lambda shapes: (shapes, {}))
    return st.tuples(_SEEDS, cases).map(lambda drawn: _drawn(domain, drawn[0], *drawn[1], dtype))


def indices(shape: Shape, *, arrays: bool = True) -> st.SearchStrategy[Any]:
    """What may stand in ``x[...]`` for an x of `shape`: slices, integers, None, Ellipsis; and with `arrays` masks and
    arrays of integers, alone or beside slices, in which elements may be named twice.

    >>> from hypothesis import given
    >>> @given(indices((3, 4)))
    ... def test(index):
    ...     np.zeros((3, 4))[index]
    >>> test()
    """
    basic = basic_indices(shape, allow_newaxis=True)
    if not arrays or not shape or 0 in shape:
        return basic
    integers = integer_array_indices(shape, result_shape=array_shapes(min_dims=0, max_dims=2, max_side=3))
    masks = array_of(np.bool_, shape)
    beside = st.tuples(st.integers(0, len(shape) - 1), _SEEDS).map(lambda drawn: _beside(shape, *drawn))
    return st.one_of(basic, integers, masks, beside)


def _beside(shape: Shape, axis: int, seed: int) -> tuple[Any, ...]:
    """An array of integers at one axis, slices at those before it."""
    rng = np.random.default_rng(seed)
    return (*(slice(None, None, -1),) * axis, rng.integers(-shape[axis], shape[axis], rng.integers(0, 4)))


@st.composite
def subscripts(draw: Any, *, max_operands: int = 3, max_side: int = 3) -> tuple[str, list[Array]]:
    """(subscripts, operands) for einsum: repeated and summed letters, broadcast axes of length 1, an ellipsis, with the
    output written or left to NumPy.

    >>> from hypothesis import given
    >>> @given(subscripts())
    ... def test(drawn):
    ...     subscripts, operands = drawn
    ...     np.einsum(subscripts, *operands)
    >>> test()
    """
    sides = {letter: draw(st.integers(1, max_side)) for letter in "ijk"}
    terms = draw(st.lists(st.text("ijk", min_size=0, max_size=3), min_size=1, max_size=max_operands))
    dots = draw(st.sampled_from(["", "", "..."]))
    spread: Shape = (draw(st.integers(1, max_side)),) if dots else ()
    used = sorted(set("".join(terms)))
    out = "->" + dots + "".join(draw(st.permutations(used))[: draw(st.integers(0, len(used)))])
    rng = np.random.default_rng(draw(_SEEDS))
    operands = [np.asarray(rng.uniform(-2, 2, (*spread, *(sides[letter] for letter in term)))) for term in terms]
    return ",".join(dots + term for term in terms) + draw(st.sampled_from(["", out])), operands
