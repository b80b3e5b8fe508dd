"""Why a NumPy function is refused when it meets a Tensor, and what to write instead.

The errors (``protocols``) and the list of all of NumPy's functions (``manifest``, docs/numpy.md) both say what stands here.

>>> message("fft.rfft")
'np.fft.rfft is not differentiable here: complex numbers are not supported; use tg.fft, where a spectrum is a pair of real Tensors, (real, imag)'
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Refusal(NamedTuple):
    """`names`: qualified names without "np."; "fft.*" is all of a module, "*.at" a method of all ufuncs."""

    names: str
    reason: str
    instead: str


# fmt: off
REFUSALS = (
    Refusal("copyto place putmask fill_diagonal", "it changes an array in place, which a graph cannot see", "x = x.at[...].set(v), or np.where"),
    Refusal("put put_along_axis", "it changes an array in place, which a graph cannot see", "x = x.at[i].set(v)"),
    Refusal("*.at", "it changes an array in place, which a graph cannot see", "x = x.at[i].add(v)"),
    Refusal("asarray array asanyarray ascontiguousarray asfortranarray require", "it would make an array, which holds no graph", "t.numpy() or t.detach(); tg.as_tensor for a Tensor"),
    Refusal("arange empty eye full identity ones zeros tri", "`like` asks for an array made from no Tensor's values", "tg.Tensor(np.zeros(...)), or np.zeros_like, np.full_like"),
    Refusal("frombuffer fromfile fromfunction fromiter fromstring genfromtxt loadtxt", "`like` asks for an array read from elsewhere", "tg.Tensor(np.loadtxt(...))"),
    Refusal("save savetxt", "files hold arrays", "np.save(file, t.numpy())"),
    Refusal("savez savez_compressed", "files hold arrays", "t.numpy(), or a state_dict"),
    Refusal("fft.*", "complex numbers are not supported", "tg.fft, where a spectrum is a pair of real Tensors, (real, imag)"),
    Refusal("lib.scimath.*", "complex numbers are not supported, and its answers may be complex", "the function of the same name in np, where the answer is real"),
    Refusal("linalg.eig linalg.eigvals", "the eigenvalues of a matrix that is not symmetric may be complex", "np.linalg.eigh or np.linalg.eigvalsh for symmetric matrices"),
    Refusal("roots", "the zeros of a polynomial may be complex", "a few steps of Newton's method from np.roots(t.numpy())"),
    Refusal("sort_complex", "complex numbers are not supported", "np.sort"),
    Refusal("intersect1d", "an element of both arrays cannot move in one of them alone", "x[np.isin(x, y)]"),
    Refusal("histogram2d histogramdd", "counts are piecewise constant, and its edges would lose their gradient", "np.histogram, or np.bincount of np.digitize with weights"),
    Refusal("lib.recfunctions.*", "it is for records, and a Tensor holds real numbers", "one Tensor a field"),
    Refusal("busday_count busday_offset datetime_as_string is_busday isnat", "it is for dates, and a Tensor holds real numbers", "NumPy's own arrays for dates"),
    Refusal("count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle isupper rfind rindex startswith str_len", "it is for text, and a Tensor holds real numbers", "NumPy's own arrays for text"),
    Refusal("_center _expandtabs _expandtabs_length _ljust _lstrip_chars _lstrip_whitespace _partition _partition_index _replace _rjust _rpartition _rpartition_index _rstrip_chars _rstrip_whitespace _slice _strip_chars _strip_whitespace _zfill", "it is for text, and a Tensor holds real numbers", "NumPy's own arrays for text"),
    Refusal("_ones_like", "it is private to NumPy", "np.ones_like"),
    Refusal("clip", "it is private to NumPy, which also has np.clip, a function", "np.clip"),
)
# fmt: on

_BY_NAME = {name: refusal for refusal in REFUSALS for name in refusal.names.split()}
_NO_ROW = Refusal("", "it is no row of the table", "t.numpy() for its value alone, or compose it from rows (tg.OPS)")


def refusal_of(name: str) -> Refusal | None:
    """What stands here of a qualified name ("fft.rfft", "copyto", "add.at"); None if nothing does."""
    family, _, last = name.rpartition(".")
    return _BY_NAME.get(name) or _BY_NAME.get(f"{family}.*") or (_BY_NAME.get(f"*.{last}") if family else None)


def message(name: str) -> str:
    """The error of a refused function."""
    refusal = refusal_of(name) or _NO_ROW
    return f"np.{name} is not differentiable here: {refusal.reason}; use {refusal.instead}"


def qualified(function: Callable[..., Any]) -> str:
    """The public name of a NumPy function, without "np."."""
    module: Any = getattr(function, "__module__", "numpy") or "numpy"
    return ".".join([*(part for part in module.split(".")[1:] if not part.startswith("_")), function.__name__])
