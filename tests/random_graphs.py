"""Random expression DAGs over the whole table: each line applies a row, at a case of its domain, to what there is already.

A graph is a list of numbers, so that any list is one, and shrinks. What a line takes is brought into the row's domain by
smooth functions: any row can follow any other, and kinks stay away.
"""

import numpy as np
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch.domains import Booleans, Integers, Interval, Matrices
from tinygrad_scratch.registry import OPS
from tinygrad_scratch.testing import samples

MOST = 48  # elements of any answer
SHAPES = ((2, 3), (3,), ())
"""What a graph begins from."""


def cases(op):
    """(shapes, options) at which a row is tried: those of its domain, without empty arrays and narrow dtypes."""
    found = [(tuple(x.shape for x in inputs), options) for inputs, options in samples(op)]
    return [
        (shapes, options)
        for shapes, options in found
        if all(0 not in s for s in shapes) and options.get("dtype") in (None, np.float64, "float64")
    ]


CASES = {name: cases(op) for name, op in OPS.items() if op.differentiable}
ROWS = [name for name, found in CASES.items() if found]


def graphs(lines=8):
    """Lists of lines: (row, case, which earlier results it takes, seed)."""
    picks = st.lists(st.integers(0, 30), min_size=3, max_size=3)
    line = st.tuples(st.sampled_from(ROWS), st.integers(0, 20), picks, st.integers(0, 2**16))
    return st.lists(line, min_size=1, max_size=lines)


def starts(seed=0):
    """Values for the beginning of a graph."""
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.uniform(-1, 1, shape)) for shape in SHAPES]


def into_domain(values, tensor, shape, rng):
    """`tensor` as an input of this shape from the domain `values`: a smooth function of it, or a constant."""
    if isinstance(values, (Integers, Booleans)):
        return values.sample(rng, shape)
    order = np.arange(int(np.prod(shape))) % tensor.size
    spread = np.reshape(np.reshape(tensor, (-1,))[order], shape)
    if type(values) is Interval and not values.kinks:
        return values.low + (values.high - values.low) * tg.sigmoid(spread)
    if isinstance(values, Matrices) and values.kind != "general":
        spread = (spread + spread.mT) / 2
    return values.sample(rng, shape) + 0.03 * np.tanh(spread)


def evaluate(graph, *inputs):
    """The sum of everything that the graph makes, each part bounded and weighted."""
    pool = list(inputs)
    total = sum(np.sum(np.sin(x)) for x in inputs)
    for name, case, picks, seed in graph:
        op, (shapes, options) = OPS[name], CASES[name][case % len(CASES[name])]
        rng = np.random.default_rng(seed)
        domain = op.domain.values + op.domain.values[-1:] * len(shapes)
        operands = [
            into_domain(values, pool[-1 - picks[i % 3] % len(pool)], shape, rng)
            for i, (values, shape) in enumerate(zip(domain, shapes, strict=False))
        ]
        answer = op(*operands, **options)
        if answer.dtype == np.float64 and 0 < answer.size <= MOST:
            pool.append(answer)
            total = total + np.mean(np.tanh(answer)) * rng.uniform(0.5, 1.5)
    return total
