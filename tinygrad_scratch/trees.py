"""Trees: nested lists, tuples, dicts and modules whose leaves are arrays, numbers or Tensors; and their vector form.

>>> import numpy as np
>>> vector, back = ravel({"w": np.ones((2, 2)), "b": 3.0})
>>> vector
array([1., 1., 1., 1., 3.])
>>> back(2 * vector)["w"].shape
(2, 2)
"""

from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any

import numpy as np

from tinygrad_scratch.errors import describe

_NODES: dict[type, tuple[Callable[[Any], dict[str, Any]], Callable[[Any, dict[str, Any]], Any]]] = {}


def register_node(
    kind: type, parts: Callable[[Any], dict[str, Any]], replaced: Callable[[Any, dict[str, Any]], Any]
) -> None:
    """Let objects of a class be nodes of trees: transforms differentiate with respect to what they hold.

    parts: object -> {name: subtree}, what is differentiated. Gradients have this form: a dict by name.
    replaced: (object, {name: subtree}) -> a like object that holds these instead; the original is left alone.

    >>> class Line:
    ...     def __init__(self, slope, name):
    ...         self.slope, self.name = slope, name
    >>> register_node(Line, lambda line: {"slope": line.slope}, lambda line, new: Line(new["slope"], line.name))
    >>> leaves([Line(2.0, "a"), 5.0])
    [2.0, 5.0]
    """
    _NODES[kind] = (parts, replaced)


def node_of(tree: Any) -> tuple[Callable[[Any], dict[str, Any]], Callable[[Any, dict[str, Any]], Any]] | None:
    """(parts, replaced) of an object of a registered class."""
    return next((_NODES[kind] for kind in type(tree).__mro__ if kind in _NODES), None) if _NODES else None


def leaves(tree: Any, nodes: bool = True) -> list[Any]:
    """The leaves of nested lists, tuples, dicts and registered nodes, in order (dicts in insertion order). None is none.

    nodes: False, and an object of a registered class is a leaf.

    >>> leaves({"b": 1.0, "a": [2.0, (3.0,), None]})
    [1.0, 2.0, 3.0]
    """
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value, nodes)]
    if isinstance(tree, (list, tuple)):
        return [leaf for value in tree for leaf in leaves(value, nodes)]
    node = node_of(tree) if nodes else None
    return [tree] if node is None else leaves(node[0](tree))


def rebuild(tree: Any, values: Iterable[Any], nodes: bool | str = True) -> Any:
    """`tree` with its leaves replaced, in order, by `values`.

    nodes: what comes of an object of a registered class: one like it; with "dict", the dict of its parts; with False it
    is a leaf.

    >>> rebuild({"b": 1.0, "a": [2.0]}, [10, 20])
    {'b': 10, 'a': [20]}
    """
    left = iter(values)

    def build(tree: Any) -> Any:
        if tree is None:
            return None
        if isinstance(tree, dict):
            return {key: build(value) for key, value in tree.items()}
        if isinstance(tree, (list, tuple)):
            items = [build(value) for value in tree]
            return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
        node = node_of(tree) if nodes else None
        if node is None:
            return next(left)
        parts = build(node[0](tree))
        return parts if nodes == "dict" else node[1](tree, parts)

    return build(tree)


def leaves_like(tree: Any, other: Any, what: str) -> list[Any]:
    """The leaves of `other`, which must have the structure of `tree`; dicts are matched by key. ValueError, TypeError."""
    node = node_of(tree)
    if node is not None:
        tree, other = node[0](tree), node[0](other) if node_of(other) is not None else other
    if isinstance(tree, dict):
        if not isinstance(other, dict) or set(other) != set(tree):
            raise ValueError(f"{what} must be a dict with the keys {list(tree)}, not {_shown(other)}")
        return [leaf for key, value in tree.items() for leaf in leaves_like(value, other[key], what)]
    if isinstance(tree, (list, tuple)):
        if not isinstance(other, (list, tuple)) or len(other) != len(tree):
            raise ValueError(f"{what} must be a {type(tree).__name__} of {len(tree)}, not {_shown(other)}")
        return [leaf for a, b in zip(tree, other, strict=True) for leaf in leaves_like(a, b, what)]
    if tree is None and other is None:
        return []
    if not hasattr(other, "shape"):
        other = np.asarray(other)
    if tuple(other.shape) != np.shape(tree):
        raise ValueError(
            f"{what} has shape {tuple(other.shape)} where it belongs to {describe(tree)}; they must be equal"
        )
    return [other]


def _shown(tree: Any) -> str:
    if isinstance(tree, dict):
        return f"a dict with the keys {list(tree)}"
    return f"a {type(tree).__name__} of {len(tree)}" if isinstance(tree, (list, tuple)) else describe(tree)


def ravel(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """(all leaves in one vector, the function that puts such a vector back into the tree's form).

    The vector has the widest floating dtype of the leaves, and each leaf gets its own back. Given Tensors, both are
    differentiable. TypeError for leaves that are not of floating point.

    >>> vector, back = ravel([np.zeros(2, np.float32), 1.5])
    >>> vector.dtype, back(vector)
    (dtype('float64'), [array([0., 0.], dtype=float32), array(1.5)])
    """
    found = [x if hasattr(x, "shape") else np.asarray(x) for x in leaves(tree)]
    for x in found:
        if x.dtype.kind != "f":
            raise TypeError(f"ravel: a leaf is {describe(x)}; leaves are of floating point (x.astype(np.float64))")
    flat = [np.reshape(x, (-1,)) for x in found]
    vector = np.concatenate(flat) if flat else np.zeros(0)
    shapes = [(tuple(x.shape), x.dtype) for x in found]
    size = sum(prod(shape) for shape, _ in shapes)

    def unravel(vector: Any) -> Any:
        """The inverse: a vector of the same length in the form of the tree."""
        vector = vector if hasattr(vector, "shape") else np.asarray(vector)
        if tuple(vector.shape) != (size,):
            raise ValueError(f"unravel: the vector has shape {tuple(vector.shape)}; these leaves make ({size},)")
        return rebuild(tree, _cut(vector, shapes))

    return vector, unravel


def _cut(vector: Any, shapes: list[tuple[tuple[int, ...], Any]]) -> Iterator[Any]:
    start = 0
    for shape, dtype in shapes:
        end = start + prod(shape)
        leaf = np.reshape(vector[start:end], shape)
        yield leaf if leaf.dtype == dtype else leaf.astype(dtype)
        start = end
