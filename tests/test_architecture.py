"""The shape of the code: which module may import which, what is imported at all, and how long things are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "tinygrad_scratch"

READING_ORDER = [
    "errors", "_typing", "_memory", "_blas", "_team", "domains", "registry", "refusals",
    "ops.elementwise", "ops.special", "ops.shaping", "ops.reductions", "ops.indexing", "ops.linalg",
    "ops.decompositions",
    "ops.windows", "ops.convolution",
    "ops.fused", "ops.composed",
    "ops.composed_linalg",
    "ops", "context", "values", "backward", "protocols", "manifest", "tensor",
    "array_api", "interchange",
    "record", "writing", "anomaly", "trees", "forward", "batch",
    "transforms", "random", "optimize", "data",
    "special", "stats", "fft",
    "capture", "nn", "optim", "testing",
]  # fmt: skip
"""Imports point only upwards in this list; within a package at the end of it (capture, nn, testing), in no circle."""

THIRD_PARTY = {"capture": {"numba", "llvmlite"}, "testing.strategies": {"hypothesis"}, "special": {"scipy"}}
"""What else than NumPy and the standard library a module may import: modules that are themselves loaded on demand."""

LONGER = {
    # module: why it may have more than 400 lines
}
LONGER_FUNCTIONS = {
    # module:function: why it may have more than 40 lines, its docstring not counted
    "tinygrad_scratch/backward.py:pull": "the loop that all backwards pay for: a call costs as much as a small product",
    "tinygrad_scratch/ops/special.py:_erf": "three approximations, each with its coefficients",
}


def modules(package):
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path):
    """``ops.elementwise`` for tinygrad_scratch/ops/elementwise.py, ``ops`` for the package."""
    parts = path.relative_to(ENGINE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path, everywhere=True):
    """The absolute names of the modules that a file imports: everywhere, or when it is loaded; type checking apart."""
    tree = ast.parse(path.read_text())

    def is_skipped(part):
        late = isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) and not everywhere
        return late or (isinstance(part, ast.If) and "TYPE_CHECKING" in ast.unparse(part.test))

    skipped = {id(node) for part in ast.walk(tree) if is_skipped(part) for node in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inside = ROOT.joinpath(*node.module.split("."), f"{alias.name}.py")
                package = ROOT.joinpath(*node.module.split("."), alias.name, "__init__.py")
                yield f"{node.module}.{alias.name}" if inside.exists() or package.exists() else node.module


def place(name):
    """A module's place in the reading order: its own, or its package's."""
    return READING_ORDER.index(name if name in READING_ORDER else name.partition(".")[0])


ENGINE_MODULES = {name_of(path): path for path in modules("tinygrad_scratch") if name_of(path)}


def own_imports(name, everywhere=True):
    found = [n.partition(".") for n in imports(ENGINE_MODULES[name], everywhere)]
    return {
        n if n in ENGINE_MODULES else n.rpartition(".")[0] for top, _, n in found if top == "tinygrad_scratch" and n
    }


def test_every_module_has_its_place():
    for name in ENGINE_MODULES:
        place(name)


@pytest.mark.parametrize("name", ENGINE_MODULES)
def test_imports_point_upwards(name):
    for imported in own_imports(name):
        assert place(imported) <= place(name), f"{name} imports {imported}, which comes later"


def test_no_circle_of_imports():
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, f"a circle: {' -> '.join([*under_way, name])}"
        if name not in done:
            under_way.append(name)
            for imported in sorted(own_imports(name, everywhere=False)):
                visit(imported)
            done.add(under_way.pop())

    for name in ENGINE_MODULES:
        visit(name)


@pytest.mark.parametrize("name", ["", *ENGINE_MODULES])
def test_the_engine_imports_numpy_and_the_standard_library_alone(name):
    path = ENGINE_MODULES.get(name, ENGINE / "__init__.py")
    allowed = {"numpy", "tinygrad_scratch", *sys.stdlib_module_names}
    extra = next((more for entry, more in THIRD_PARTY.items() if name == entry or name.startswith(entry + ".")), set())
    for imported in imports(path):
        assert imported.partition(".")[0] in allowed | extra, f"{name} imports {imported}"


def test_optional_packages_are_loaded_on_demand():
    code = (
        "import sys, tinygrad_scratch as tg; tg.nn.Linear, tg.optim.SGD, tg.testing.check_grad;"
        "print(*{n.partition('.')[0] for n, m in sys.modules.items() if hasattr(m, '__file__')})"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {m for m in run.stdout.split() if not m.startswith("_")} - sys.stdlib_module_names
    assert loaded <= {"numpy", "tinygrad_scratch", "sitecustomize"}


def test_testing_says_what_is_missing():
    code = (
        "import sys; sys.modules['hypothesis'] = None; import tinygrad_scratch.testing as t; t.check_grad; t.op_inputs"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "testing.op_inputs needs Hypothesis: pip install tinygrad_scratch[test]" in run.stderr


SOURCES = [path for package in ("tinygrad_scratch", "models", "benchmarks", "tests") for path in modules(package)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_short(path):
    text = path.read_text()
    relative = str(path.relative_to(ROOT))
    if not relative.startswith("tests"):
        assert len(text.splitlines()) <= 400 or relative in LONGER
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = node.end_lineno - first.lineno + 2
            assert length <= 40 or f"{relative}:{node.name}" in LONGER_FUNCTIONS, f"{node.name} has {length} lines"
