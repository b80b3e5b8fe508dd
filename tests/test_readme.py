"""What README and the guide show runs as it stands, block after block, and the quoted source is what capture writes."""

import re
from pathlib import Path

import numpy as np
import pytest

from tinygrad_scratch import OPS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text() + (ROOT / "docs" / "guide.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def _no_new_rows():
    before = set(OPS)
    yield
    for name in set(OPS) - before:
        del OPS[name]


def test_the_examples_run():
    shown = {}
    programs = [block for block in BLOCKS if "..." not in block.replace("x @ ...", "")]
    assert len(programs) >= 9
    for program in programs:
        exec(compile(program, "README.md and docs/guide.md", "exec"), shown)
    x, labels = np.random.default_rng(0).random((50, 784), np.float32), np.arange(50) % 10
    losses = [float(shown["step"](x, labels)) for _ in range(100)]
    assert losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose(shown["x"].grad.numpy(), 2 * np.tanh([0.3, 0.7]) / np.cosh([0.3, 0.7]) ** 2)
    quoted = [
        line.split("#")[0].strip() for line in next(b for b in BLOCKS if "..." in b).splitlines() if "out=" in line
    ]
    source = shown["step"].source
    assert quoted
    for line in quoted:
        pattern = re.escape(line).replace(r"0\.02", r"0\.0\d+")
        assert re.search(pattern, source), f"{line} is not in the derived source:\n{source}"
