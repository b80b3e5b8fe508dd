"""What happens to a Tensor in each of NumPy's functions: every name that NumPy lets be overridden, and its answer here.

``python -m tinygrad_scratch.manifest`` prints the page docs/numpy.md. Everything it says is read from the table of rows,
from the compositions' docstrings and from ``refusals``; a test holds the page to it, and fails when NumPy adds a name.

>>> found = {entry.name: entry for entry in entries()}
>>> found["exp"].answer, found["argmax"].answer, found["roots"].answer
('gradient', 'none', 'refused')
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinygrad_scratch import refusals, registry
from tinygrad_scratch.registry import ANSWERS, CONSTANT, MORE, VALUES, Op

TITLES = {
    "gradient": "Differentiable",
    "zero": "Piecewise constant: the gradient is zero",
    "none": "Answered without a gradient: truth values, indices, counts, shapes, dtypes",
    "refused": "Refused, with the reason",
    "missing": "Forgotten",
}


_LOADED_LATE = ("char.", "strings.", "polynomial.")
"""Modules of functions that can be overridden only once somebody has imported them (SciPy does): text, and one helper."""


class Entry(NamedTuple):
    """One of NumPy's names: `answer` is a key of TITLES, `how` says by what, or why not."""

    name: str
    answer: str
    how: str


def functions() -> dict[str, Callable[..., Any]]:
    """Every ufunc and function of NumPy that can be overridden, by its qualified name without "np."."""
    from numpy.testing.overrides import get_overridable_numpy_array_functions, get_overridable_numpy_ufuncs

    found: list[Any] = [*get_overridable_numpy_array_functions(), *get_overridable_numpy_ufuncs()]
    found += [function for function in vars(np.fft).values() if hasattr(function, "_implementation")]
    named = {f.__name__ if isinstance(f, np.ufunc) else refusals.qualified(f): f for f in found}
    named = {name: f for name, f in named.items() if not name.startswith(_LOADED_LATE)}
    public = {name: getattr(np, name, function) for name, function in named.items()}  # np.eye, not its twin for like=
    return dict(sorted(public.items(), key=lambda pair: pair[0].lower()))


def entries() -> list[Entry]:
    """The answer to every name."""
    registry.load_all()
    return [_entry(name, function) for name, function in functions().items()]


def _entry(name: str, function: Callable[..., Any]) -> Entry:
    answer = ANSWERS.get(function)
    if isinstance(answer, Op):
        more = "; further options by a composition" if function in MORE else ""
        return Entry(name, _gradient_of(answer), f"row `{answer.__name__}`{more}")
    if answer is not None:
        said = (answer.__doc__ or "").strip().partition("\n")[0]
        said = said.removeprefix(f"np.{name}").removeprefix(f"np.{function.__name__}").lstrip(":;,. ")
        return Entry(name, CONSTANT.get(function, "gradient"), said or "composition of rows")
    if function in VALUES:
        return Entry(name, "none", "NumPy's own, of the values")
    refusal = refusals.refusal_of(name)
    return Entry(name, "refused", f"{refusal.reason}; use {refusal.instead}") if refusal else Entry(name, "missing", "")


def _gradient_of(row: Op) -> str:
    """A row whose rules all are the one of piecewise constant functions has a gradient of zero."""
    if not row.differentiable:
        return "none"
    return "zero" if all(getattr(rule, "__name__", "") == "_flat" for rule in row.rules) else "gradient"


_HEAD = """# NumPy's functions on Tensors

Every name that NumPy {version} lets be overridden (`numpy.testing.overrides`, and `np.fft`), and what it does when it meets a
Tensor. This page is made by `python -m tinygrad_scratch.manifest > docs/numpy.md`; the errors of what is refused say the same.

| | names |
| --- | --- |
{counts}

## Options and methods of ufuncs

| | |
| --- | --- |
| `np.add(t, u, dtype=np.float32)` | operands are converted first; for floating-point dtypes and ufuncs with a gradient |
| `out=` | refused: an array cannot hold a graph. Under `no_grad()` or without a gradient, `array += t` is allowed |
| `where=` of a call | refused: what lies elsewhere would be undefined; use `np.where` |
| `casting=`, `order=`, `subok=`, `signature=` | refused |
| `reduce` | `axis`, `keepdims`, `dtype`, `initial` and `where` honoured, for every binary ufunc that is answered |
| `accumulate`, `reduceat`, `outer` | for every binary ufunc that is answered |
| `at` | {at} |
| an option that a function does not take | refused by name, never ignored |

Reductions and scans by rows (`np.add`, `np.multiply`, `np.maximum`, `np.minimum`, `np.logaddexp`) cost one operation, by other
ufuncs one an element; those are the definition's answers also where NumPy's own vectorised loops differ from it (the `reduce` of
`np.power` and `np.arctan2` in NumPy 2.4 on some processors). Ties and kinks are decided as README says; functions that sort give
each of equal elements the cotangent of the place where it comes to lie, and `np.unique` the first of them. A captured step
refuses what would read values to decide a shape (`np.unique`, `np.extract`, `np.nonzero` ...).
"""


def page() -> str:
    """The page docs/numpy.md."""
    all_entries = entries()
    groups = {answer: [e for e in all_entries if e.answer == answer] for answer in TITLES}
    counts = "\n".join(f"| {TITLES[answer]} | {len(group)} |" for answer, group in groups.items() if group)
    at = refusals.message("add.at").partition(": ")[2]
    parts = [_HEAD.format(version=np.__version__, counts=counts, at=f"refused: {at}")]
    for answer, group in groups.items():
        if group:
            parts.append(f"## {TITLES[answer]}\n\n| name | |\n| --- | --- |\n" + "\n".join(map(line, group)) + "\n")
    return "\n".join(parts)


def line(entry: Entry) -> str:
    """An entry's line of the page."""
    return f"| `np.{entry.name}` | {entry.how.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    print(page(), end="")
