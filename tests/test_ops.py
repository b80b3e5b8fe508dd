"""THE suite: every row of the table x everything that is promised of rows; then, that the suite itself would notice."""

import itertools

import numpy as np
import pytest
from hypothesis import given

import tinygrad_scratch as tg
from tinygrad_scratch import backward, record
from tinygrad_scratch.domains import reals, shapes
from tinygrad_scratch.registry import ANSWERS, OPS, Op
from tinygrad_scratch.testing import PROPERTIES, check_op, op_inputs, samples

ROWS = dict(OPS)
PAIRS = [(row, promise) for row, op in ROWS.items() for promise, (_, applies) in PROPERTIES.items() if applies(op)]


@pytest.mark.parametrize(("row", "promise"), PAIRS)
def test_promise(row, promise):
    op, (check, _) = ROWS[row], PROPERTIES[promise]

    @given(op_inputs(op))
    def holds(drawn):
        check(op, *drawn)

    holds()


# -- nothing is skipped in silence -------------------------------------------------------------------------------------


def test_every_row_has_its_promises():
    for row, op in ROWS.items():
        promises = {promise for name, promise in PAIRS if name == row}
        assert op.kind in ("elementwise", "linear", "multilinear", "general")
        assert {"value", "layouts", "operands_unchanged"} <= promises
        assert {"gradient", "second_order", "lifted", "float32"} <= promises or "no_gradient" in promises
        assert ("reference" in promises) == (op.reference is not None)
    assert {promise for _, promise in PAIRS} == set(PROPERTIES)


def test_every_answer_is_a_row_or_a_function():
    for function, answer in ANSWERS.items():
        assert callable(function)
        assert answer is OPS.get(answer.__name__) if isinstance(answer, Op) else callable(answer)


@pytest.mark.parametrize("row", [row for row, op in ROWS.items() if op.differentiable])
def test_every_rule_runs_on_arrays_and_on_tensors(row, monkeypatch):
    op = ROWS[row]
    ran = set()

    def counted(rule, i):
        def count(g, y, *inputs, **options):
            ran.add((i, isinstance(g, tg.Tensor)))
            return rule(g, y, *inputs, **options)

        return rule and count

    monkeypatch.setattr(op, "rules", tuple(counted(rule, i) for i, rule in enumerate(op.rules)))
    for inputs, options in samples(op):
        for promise in ("gradient", "lifted"):
            PROPERTIES[promise][0](op, inputs, options)
    assert ran == {(i, lifted) for i, rule in enumerate(op.rules) if rule for lifted in (False, True)}


# -- a broken row is caught --------------------------------------------------------------------------------------------

MUTATIONS = {
    "wrong sign": lambda part, x: -part,
    "missing factor": lambda part, x: 0.5 * part,
    "lost term": lambda part, x: part + 0.1 * np.ones(x.shape),
}


def broken(op, i, mutate):
    """The rules of `op`, with what the i-th gives spoilt."""
    rules = op.rules
    if op.variadic:

        def pull(g, y, *inputs, **options):
            part = rules[0](g, y, *inputs, **options)
            return lambda j: mutate(part(j), inputs[j])

        return (pull,)

    def rule(g, y, *inputs, **options):
        return mutate(rules[i](g, y, *inputs, **options), inputs[i])

    return (*rules[:i], rule, *rules[i + 1 :])


def is_caught(op, promise):
    """Whether the check of a promise fails at some case of the row."""
    for inputs, options in samples(op):
        try:
            PROPERTIES[promise][0](op, inputs, options)
        except (AssertionError, ValueError):
            return True
    return False


@pytest.mark.parametrize("row", [row for row, op in ROWS.items() if op.differentiable])
def test_a_broken_rule_is_caught(row, monkeypatch):
    op = ROWS[row]
    for i in [i for i, rule in enumerate(op.rules) if rule]:
        flat = getattr(op.rules[i], "__name__", "") == "_flat"  # derivative 0: neither its sign nor a factor is seen
        for name in MUTATIONS if not flat else ["lost term"]:
            with monkeypatch.context() as patch:
                patch.setattr(op, "rules", broken(op, i, MUTATIONS[name]))
                assert is_caught(op, "gradient"), f"rule {i} of {row}: {name} is not noticed"


def make(fn, *rules, kind="elementwise", domain=reals, **about):
    """A row that is not in the table."""
    op = Op(fn, rules, kind, domain, name="scratch", **about)
    record.bind(op)
    return op


def peek(x):
    """The values behind a Tensor: what a rule must not use, because the graph ends there."""
    return getattr(x, "_data", x)


DRIFT = itertools.count()
NO_LINEAR = make(np.square, lambda g, y, x: g * 2 * x, kind="linear")
LIES = {
    "value": make(lambda x: x + next(DRIFT), lambda g, y, x: g),
    "no_gradient": make(np.exp, None),
    "second_order": make(np.exp, lambda g, y, x: g * peek(y)),
    "lifted": make(np.exp, lambda g, y, x: g * (y if isinstance(y, np.ndarray) else 2 * y)),
    "float32": make(lambda x: np.exp(np.asarray(x, np.float64)), lambda g, y, x: g * y),
    "rules_stay_narrow": make(np.exp, lambda g, y, x: g * y * np.ones(y.shape)),
    "layouts": make(lambda x: np.exp(x) + x.flags.fnc, lambda g, y, x: g * y, domain=shapes((2, 3))),
    "operands_unchanged": make(lambda x: np.exp(x, out=x), lambda g, y, x: g * y, domain=shapes((3,))),
    "reference": make(np.exp, lambda g, y, x: g * y, reference=np.expm1),
    "elements_are_independent": make(lambda x: x - x.mean(), lambda g, y, x: g - np.mean(g), domain=shapes((2, 3))),
    "forward_mode": make(np.cumsum, lambda g, y, x: np.flip(np.cumsum(np.flip(g))), domain=shapes((3,))),
    "forward_over_reverse": make(lambda x: x**3 / 3, lambda g, y, x: g * NO_LINEAR(x)),
    "linear_in_each": make(np.square, lambda g, y, x: 2 * g * x, kind="linear", domain=shapes((3,))),
    "empty_and_0d": make(lambda x: np.atleast_1d(np.exp(x)), lambda g, y, x: g * y),
}


@pytest.mark.parametrize("promise", LIES)
def test_a_row_that_breaks_a_promise_is_caught(promise):
    assert is_caught(LIES[promise], promise)
    with pytest.raises((AssertionError, ValueError)) as caught:
        check_op(LIES[promise])
    assert "scratch" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("promise", ["broadcasting", "mixed_dtypes"])
def test_an_engine_that_does_not_fit_gradients_is_caught(promise, monkeypatch):
    monkeypatch.setattr(backward, "project", lambda g, shape, dtype: g)
    assert is_caught(ROWS["multiply"], promise)


def test_a_rule_that_forgets_to_spread_is_refused(monkeypatch):
    monkeypatch.setattr(ROWS["sum"], "rules", (lambda g, y, x, **options: g,))
    with pytest.raises(ValueError, match=r"cotangent of shape \(3,\) for an input of shape \(2, 3\)"):
        tg.gradients(np.sum(tg.Tensor(np.ones((2, 3)), requires_grad=True), axis=0), [], np.ones(3))
