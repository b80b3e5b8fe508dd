"""Random steps: programs over Tensors that are drawn as numbers, so that any list of numbers is one, and shrinks."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from capturing import arrays_of, assert_same, tolerance_for
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch.random import uniform

MOST = 96  # elements of any Tensor
SMOOTH = [
    np.tanh,
    np.sin,
    tg.sigmoid,
    tg.softplus,
    np.arctan,
    np.negative,
    lambda x: np.exp(-np.square(x)),
    lambda x: x * 0.5,
]
KINKED = [
    np.abs,
    tg.relu,
    tg.leaky_relu,
    np.sign,
    np.floor,
    lambda x: np.clip(x, -0.4, 0.6),
    lambda x: np.where(x > 0.1, x, -np.inf),
]
SCALED = [
    lambda x: x * 1.0,
    lambda x: 2 - x,
    lambda x: x / 3,
    lambda x: x**2,
    lambda x: 1.0 * x,
    lambda x: 0.25 + x,
    lambda x: x - 0,
]
PAIRED = [
    np.add,
    np.subtract,
    np.multiply,
    lambda a, b: a / (1 + np.square(b)),
    np.logaddexp,
    lambda a, b: np.hypot(a, b + 3),
]
TIED = [np.maximum, np.minimum, lambda a, b: np.where(a > b, a, b), lambda a, b: (a >= b) * a, lambda a, b: a * (b > 0)]
FOLDED = [np.sum, np.mean, np.var, tg.logsumexp]
CHOSEN = [np.max, np.min, np.prod, np.std]
ALONG = [tg.softmax, tg.log_softmax]


@dataclass(frozen=True)
class Program:
    """What a step does. Each line is (kind, three numbers); `ending` says what it differentiates, changes and returns."""

    body: tuple
    ending: tuple
    compiled: bool = False


def programs(compiled=False, lines=14):
    """Programs; to be compiled: of rows that can be, and without kinks, where rounding would tip a comparison."""
    number = st.integers(0, 60)
    line = st.tuples(st.integers(0, len(LINES) - 1), number, number, number)
    return st.builds(
        Program,
        st.lists(line, min_size=1, max_size=lines).map(tuple),
        st.tuples(st.integers(0, 4), number, number),
        st.just(compiled),
    )


class World:
    """What a step reads and changes: parameters, buffers, and an array of its own."""

    def __init__(self, dtype, seed=0):
        rng = np.random.default_rng(seed)
        draw = lambda *shape: rng.uniform(-1, 1, shape).astype(dtype)  # noqa: E731
        self.parameters = [tg.Tensor(draw(*s), requires_grad=True) for s in ((3, 4), (4, 3), (3,), ())]
        self.parameters.append(tg.as_tensor(np.asfortranarray(draw(4, 3))).requires_grad_())
        self.buffers = [tg.Tensor(draw(3, 4)), tg.Tensor(draw(3))]
        self.table = draw(4, 3)
        self.rng = np.random.default_rng(seed + 1)

    def values(self):
        return [t._data for t in (*self.parameters, *self.buffers)]

    def gradients(self):
        return [None if p.grad is None else p.grad._data for p in self.parameters]


def inputs(dtype, rng):
    """Arguments of a step: x (3, 4), y (4,), k (3,) indices, flags (3, 4), t 0-d."""
    x, y, t = (rng.uniform(-1, 1, shape).astype(dtype) for shape in ((3, 4), (4,), ()))
    return x, y, rng.integers(0, 3, 3), rng.random((3, 4)) < 0.5, np.asarray(t)


class Machine:
    """Runs a program on Tensors: a pool that grows by a Tensor a line."""

    def __init__(self, world, program, x, y, k, flags, t):
        self.world, self.compiled = world, program.compiled
        self.x, self.k, self.flags, self.t = x, k, flags, t
        self.pool = [x, y, t, *world.parameters, tg.as_tensor(world.table)]
        self.owned, self.used = [], set()

    def pick(self, n):
        everything = [*self.pool, *self.world.buffers]
        tensor = everything[-1 - n % len(everything)]
        self.used.add(id(tensor))
        return tensor

    def push(self, tensor, owned=False):
        if tensor.size <= MOST and tensor.ndim <= 4:
            self.pool.append(tensor)
            if owned and tensor.is_leaf and tensor.dtype.kind == "f":
                self.owned.append(tensor)

    def run(self, body):
        for kind, a, b, c in body:
            with suppress(TypeError):  # NumPy negates no booleans, and so on
                LINES[kind](self, a, b, c)


def unary(m, a, b, c):
    m.push(SMOOTH[b % len(SMOOTH)](m.pick(a)))


def scaled(m, a, b, c):
    m.push(SCALED[b % len(SCALED)](m.pick(a)), owned=True)


def kinked(m, a, b, c):
    if m.compiled:
        m.push(np.where(m.flags, m.x, KINKED[b % 3](m.x)))
    else:
        m.push(KINKED[b % len(KINKED)](m.pick(a)))


def paired(m, a, b, c):
    functions = PAIRED if m.compiled else PAIRED + TIED
    p, q = m.pick(a), m.pick(b)
    try:
        np.broadcast_shapes(p.shape, q.shape)
    except ValueError:
        return
    m.push(functions[c % len(functions)](p, q), owned=True)


def folded(m, a, b, c):
    p = m.pick(a)
    functions = [np.sum] if not p.size else FOLDED if m.compiled else FOLDED + CHOSEN
    axes = [None, *range(p.ndim), *([(0, p.ndim - 1)] if p.ndim > 1 else [])]
    m.push(functions[b % len(functions)](p, axis=axes[c % len(axes)], keepdims=c % 2 == 1))


def along(m, a, b, c):
    p = m.pick(a)
    if p.ndim and p.size:
        m.push(ALONG[b % 2](p, axis=c % p.ndim) if b % 3 or m.compiled else np.cumsum(p, axis=c % p.ndim))


def viewed(m, a, b, c):
    p = m.pick(a)
    if not p.ndim:
        m.push(p.reshape((1, 1) if b % 2 else (1,)))
        return
    axis, n = c % p.ndim, max(p.shape[c % p.ndim], 1)
    rest = (slice(None),) * axis
    choices = [
        lambda: p.T, lambda: p.reshape(-1), lambda: p.reshape((*p.shape[1:], p.shape[0])), lambda: p[None],
        lambda: p[(*rest, slice(b % 2, None, 2 if n > 2 else 1))], lambda: p[(*rest, c % n)] if p.shape[axis] else p, lambda: np.flip(p, axis=axis),
        lambda: np.swapaxes(p, axis, -1), lambda: np.squeeze(p), lambda: np.broadcast_to(p, (2, *p.shape)), lambda: p[..., None],
        lambda: np.moveaxis(p, 0, -1), lambda: p.detach(), lambda: np.copy(p), lambda: p[(*rest, slice(n, None))],
    ]  # fmt: skip
    m.push(choices[b % len(choices)]())


def cast(m, a, b, c):
    """Other dtypes; of integers and booleans only what no rounding tips."""
    p = m.pick(a)
    if b % 3:
        m.push(p.astype((m.x.dtype if m.compiled else np.float32, np.float64)[c % 2]))
        return
    counts = (m.x * 5).astype((np.int64, np.int32, np.bool_, np.int8)[c % 4])
    m.push([lambda: counts, lambda: counts * p if counts.shape == p.shape else counts * m.t,
            lambda: np.sum(counts, axis=0), lambda: np.where(m.flags, counts, 1) / 2,
            lambda: counts.astype(np.float32) * 2, lambda: np.max(counts, axis=0) if counts.size else counts,
            lambda: np.cumsum(counts) if not m.compiled else -(counts + 1)][b // 3 % 7]())  # fmt: skip


def product(m, a, b, c):
    p, q = m.pick(a), m.pick(b)
    if p.ndim and q.ndim:
        for left, right in ((p, q), (p, q.T), (p.T, q), (p.T, q.T)):
            inner = right.shape[-2] if right.ndim > 1 else right.shape[0]
            if left.shape[-1] == inner and (right.ndim < 3 if m.compiled else left.ndim < 3 or right.ndim < 3):
                m.push(np.tanh(left @ right) if c % 2 else left @ right)
                return


def indexed(m, a, b, c):
    p = m.pick(a)
    if m.compiled:
        m.push(m.x[m.k, m.k] if b % 2 else p.at[0].set(0.25) if p.ndim and p.size and p.dtype.kind == "f" else p)
    elif p.ndim and p.shape[0] >= 3 and p.size and p.dtype.kind == "f":
        choices = [lambda: p[m.k], lambda: p[m.k, 0] if p.ndim > 1 else p[m.k], lambda: np.take(p, [0, 2, 0], axis=0),
                   lambda: p.at[m.k].add(0.5), lambda: p.at[0].set(0.25), lambda: p[m.k, m.k] if min(p.shape) > 2 and p.ndim == 2 else p[1]]  # fmt: skip
        m.push(choices[b % len(choices)]())


def joined(m, a, b, c):
    p, q = m.pick(a), m.pick(b)
    if p.ndim and p.shape == q.shape:
        m.push([lambda: np.concatenate([p, q], axis=c % p.ndim), lambda: np.stack([q, p])][c % 2]())
    elif p.ndim:
        m.push(np.pad(p, [(c % 2, 1)] + [(0, 0)] * (p.ndim - 1)))


def integers(m, a, b, c):
    counts = (m.k + b) * 2 - m.k
    m.push(
        [
            lambda: counts * 0.5,
            lambda: np.sum(m.flags, axis=0) * m.x,
            lambda: counts // (1.0 if m.compiled else 2) + m.x[:, 0],
            lambda: m.x * m.flags,
        ][c % 4]()
    )


def changed(m, a, b, c):
    """A buffer, or a result without a graph, changes in place."""
    others = [] if tg.is_grad_enabled() else m.world.parameters
    targets = [t for t in (*m.world.buffers, *others, *m.owned) if id(t) not in m.used or not tg.is_grad_enabled()]
    if not targets:
        return
    target, value = targets[a % len(targets)], m.pick(b).detach()
    if value.shape not in ((), target.shape) or value.dtype != target.dtype:
        value = 0.125
    with tg.no_grad():
        if c % 3 == 0:
            target += value
        elif c % 3 == 1:
            target *= 0.5
        else:
            target -= 0.1 * value


def constants(m, a, b, c):
    p = m.pick(a)
    m.push(
        [
            lambda: np.ones_like(p),
            lambda: tg.as_tensor(np.linspace(0, 1, 4, dtype=m.x.dtype)),
            lambda: np.zeros_like(p) + 0.5,
            lambda: p * np.float64(0.5),
            lambda: np.float32(2) - p,
        ][c % 5]()
    )


def differentiated(m, a, b, c):
    """A derivative within the step, to be differentiated again."""
    p, q = m.pick(a), m.world.parameters[b % 4]
    if tg.is_grad_enabled() and p.requires_grad and p.dtype.kind == "f":
        m.push(tg.gradients(np.sum(np.tanh(p) * q.reshape(-1)[0]), [q], create_graph=c % 2 == 1)[0])


def drawn(m, a, b, c):
    """Dropout, which draws anew in every call."""
    p = m.pick(a)
    if p.dtype.kind == "f":
        m.push(p * (uniform(p.shape, m.world.rng) >= 0.5))


LINES = [
    unary,
    scaled,
    paired,
    paired,
    folded,
    viewed,
    viewed,
    cast,
    product,
    product,
    kinked,
    along,
    indexed,
    joined,
    integers,
    changed,
    constants,
    differentiated,
    drawn,
]


def step_of(program, world):
    """The step that a program is, over a world."""
    how, first, second = program.ending

    def step(x, y, k, flags, t):
        m = Machine(world, program, *map(tg.as_tensor, (x, y, k, flags, t)))
        if how == 0:
            with tg.no_grad():
                m.run(program.body)
                m.run([(LINES.index(changed), first, second, first)] * 2)
                return results(m, first, second)
        m.run(program.body)
        if how == 1:
            return results(m, first, second)
        ends = [p for p in m.pool[-3:] if p.requires_grad] or [world.parameters[0] * 1.5]
        loss = sum(np.mean(np.tanh(p)) for p in ends)
        if how == 2:
            return loss, tg.gradients(loss, world.parameters), results(m, first, second)
        for p in world.parameters:
            p.zero_grad()
        loss.backward()
        if how == 3:
            return {"loss": loss, "rest": results(m, first, second)}
        update(m, first, second)
        return [loss, None, results(m, first, second)]

    return step


def update(m, first, second):
    """Gradient descent with momentum, on some of the parameters."""
    with tg.no_grad():
        for n, p in enumerate(m.world.parameters):
            if p.grad is None or n == second % 7:
                continue
            if n == 0:
                m.world.buffers[0] *= 0.9
                m.world.buffers[0] += p.grad
                p -= 0.1 * m.world.buffers[0]
            else:
                p -= (0.05 * p.grad + 0.01 * p) if first % 2 else 0.2 * p.grad
    if first % 3 == 0:
        for p in m.world.parameters:
            p.grad = None


def results(m, first, second):
    """Some of the pool: results, views, inputs, parameters, buffers."""
    return (m.pool[-1], {"other": m.pick(first), "more": [m.pick(second), m.pool[-1]]})


CALLS = 5


def assert_equal_over_calls(some, backend, rewrites, dtype):
    """Programs, as one step, run eagerly and captured, each in worlds of its own: results, state and gradients agree."""
    here, there = [World(dtype) for _ in some], [World(dtype) for _ in some]
    eager = [step_of(program, world) for program, world in zip(some, here, strict=True)]
    others = [step_of(program, world) for program, world in zip(some, there, strict=True)]
    captured = tg.capture(lambda *args: [step(*args) for step in others], backend=backend, rewrites=rewrites)
    rng, tolerance = np.random.default_rng(1), tolerance_for(backend, rewrites, dtype)
    for call in range(CALLS):
        args = inputs(dtype, rng)
        with np.errstate(all="ignore"):
            expected = arrays_of([step(*args) for step in eager])
            found = arrays_of(captured(*(x.copy() for x in args)))
        assert_same(found, expected, tolerance, f"call {call}, result")
        for program, one, other in zip(some, here, there, strict=True):
            assert_same(other.values(), one.values(), tolerance, f"call {call}, state")
            if program.ending[0] == 3:  # gradients are left, nothing is updated
                assert_same(other.gradients(), one.gradients(), tolerance, f"call {call}, gradient")
    assert [plan.calls for plan in captured.plans] == [CALLS - 2]
    return captured
