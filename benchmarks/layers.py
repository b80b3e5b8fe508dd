"""Layers, forward and backward, and whole training steps of two convolutional networks, beside torch.

How to read it: a row is a layer (all its gradients, that of its input among them) or a training step (forward, backward, SGD
with momentum) at batch 64 in float32; a column a competitor. The first table has its time as a multiple of torch's in the
same rounds (median over the rounds), so less is better; the second the best time. The third has the most memory that a call
takes beyond parameters and inputs: of ours the arrays, as tracemalloc sees them; of torch the growth of the process.
All start from the same parameters, and what they compute is compared with the first one's: "!" marks another result.
Every competitor runs in a process of its own, one at a time (see worker.py), with its own number of threads.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import measure, steps
from benchmarks.worker import FarEnd, Loaded, Worker

Layer = tuple[Any, ...]  # name and arguments, which are the same for torch.nn and for us
BATCH, CLASSES, CHECKED = 64, 10, 3
PEERS = ("torch-eager", "ours-eager", "ours-numpy", "ours-compiled")


class Case(NamedTuple):
    """What is timed."""

    label: str
    shape: tuple[int, ...]  # of one example
    layers: tuple[Layer, ...]
    trains: bool = False  # a training step, or a layer's gradients


LENET5: tuple[Layer, ...] = (
    ("Conv2d", 1, 6, 5, 1, 2), ("ReLU",), ("MaxPool2d", 2), ("Conv2d", 6, 16, 5), ("ReLU",), ("MaxPool2d", 2), ("Flatten",),
    ("Linear", 400, 120), ("ReLU",), ("Linear", 120, 84), ("ReLU",), ("Linear", 84, CLASSES),
)  # fmt: skip


def vgg(*widths: int) -> tuple[Layer, ...]:
    pairs = zip((3, *widths), widths, strict=False)
    blocks = [
        (("Conv2d", a, b, 3, 1, 1), ("ReLU",), ("Conv2d", b, b, 3, 1, 1), ("ReLU",), ("MaxPool2d", 2)) for a, b in pairs
    ]
    return (*(layer for block in blocks for layer in block), ("Flatten",), ("Linear", widths[-1] * 16, CLASSES))


CASES = {
    "linear": Case("Linear 512-512", (512,), (("Linear", 512, 512),)),
    "conv5x5": Case("Conv2d 6-16, 5x5, 14x14", (6, 14, 14), (("Conv2d", 6, 16, 5),)),
    "conv3x3": Case("Conv2d 32-32, 3x3, 16x16", (32, 16, 16), (("Conv2d", 32, 32, 3, 1, 1),)),
    "conv-stride": Case("Conv2d 32-64, 3x3, stride 2, 16x16", (32, 16, 16), (("Conv2d", 32, 64, 3, 2, 1),)),
    "conv1x1": Case("Conv2d 64-64, 1x1, 16x16", (64, 16, 16), (("Conv2d", 64, 64, 1),)),
    "max-pool": Case("MaxPool2d 2, 32x16x16", (32, 16, 16), (("MaxPool2d", 2),)),
    "avg-pool": Case("AvgPool2d 2, 32x16x16", (32, 16, 16), (("AvgPool2d", 2),)),
    "batch-norm": Case("BatchNorm2d, 32x16x16", (32, 16, 16), (("BatchNorm2d", 32),)),
    "layer-norm": Case("LayerNorm 512", (512,), (("LayerNorm", 512),)),
    "relu": Case("ReLU, 32x16x16", (32, 16, 16), (("ReLU",),)),
    "lenet5": Case("LeNet-5, a training step", (1, 28, 28), LENET5, trains=True),
    "vgg": Case("VGG 16-32-64, a training step", (3, 32, 32), vgg(16, 32, 64), trains=True),
    "vgg-wide": Case("VGG 32-64-128, a training step", (3, 32, 32), vgg(32, 64, 128), trains=True),
}


# ---- competitors -----------------------------------------------------------------------------------------------------


class Ours:
    """tinygrad_scratch, eager or captured."""

    library = "tinygrad_scratch"

    def __init__(self, case: Case, batch: int, seed: int, backend: str | None = None) -> None:
        import tinygrad_scratch as tg

        self.tg, self.case = tg, case
        self.cross_entropy = tg.nn.functional.cross_entropy
        self.model, self.inputs = problem(case, batch, seed)
        self.initial = self.model.state_dict()
        self.optimizer: Any = tg.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9) if case.trains else None
        self.step = self.train if case.trains else self.differentiate
        if backend is not None:
            self.step = tg.capture(self.step, backend=backend)

    def differentiate(self, x: Any, g: Any) -> Any:
        x = self.tg.as_tensor(x).detach().requires_grad_()
        return self.tg.gradients(self.model(x), [x, *self.model.parameters()], g)

    def train(self, x: Any, labels: Any) -> Any:
        loss = self.cross_entropy(self.model(x), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return [loss]

    def run(self, count: int) -> Any:
        for _ in range(count):
            found = self.step(*self.inputs)
        return found

    def reset(self) -> None:
        self.model.load_state_dict(self.initial)
        for kept in self.optimizer.state.values() if self.optimizer else ():
            for array in kept.values():
                array[...] = 0.0

    def numbers(self, found: Any) -> list[float]:
        return [float(np.linalg.norm(t.numpy())) for t in found]


class Torch(Ours):
    """torch, eager, with torch's own number of threads."""

    def __init__(self, case: Case, batch: int, seed: int) -> None:
        torch = self.torch = importlib.import_module("torch")
        self.cross_entropy = torch.nn.functional.cross_entropy
        model, inputs = problem(case, batch, seed)
        self.case, self.inputs = case, [torch.from_numpy(x) for x in inputs]
        self.model = in_torch(torch, case.layers, model)
        self.initial = {name: values.clone() for name, values in self.model.state_dict().items()}
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9) if case.trains else None
        self.step = self.train if case.trains else self.differentiate

    def differentiate(self, x: Any, g: Any) -> Any:
        x = x.detach().requires_grad_()
        return self.torch.autograd.grad(self.model(x), [x, *self.model.parameters()], g)

    def reset(self) -> None:
        self.model.load_state_dict(self.initial)
        for kept in self.optimizer.state.values() if self.optimizer else ():
            kept["momentum_buffer"].zero_()

    def numbers(self, found: Any) -> list[float]:
        return [float(self.torch.linalg.vector_norm(t.detach())) for t in found]


def in_torch(torch: Any, layers: Sequence[Layer], model: Any) -> Any:
    """The layers as a model of torch's, with the parameters of ours."""
    made = torch.nn.Sequential(*(getattr(torch.nn, name)(*arguments) for name, *arguments in layers))
    state = {name: torch.from_numpy(values) for name, values in model.state_dict().items()}
    made.load_state_dict({**made.state_dict(), **state})
    return made


def problem(case: Case, batch: int, seed: int) -> tuple[Any, list[Any]]:
    """Our model with its initial parameters, and (x, cotangent) or (x, labels). ImportError for a layer that is not there."""
    from tinygrad_scratch import nn

    rng = np.random.default_rng(seed)
    drawn = {"Conv2d", "Linear"}
    if missing := [name for name, *_ in case.layers if not hasattr(nn, name)]:
        raise ImportError(f"no {missing[0]}")
    layers = [
        getattr(nn, name)(*arguments, **({"rng": rng} if name in drawn else {})) for name, *arguments in case.layers
    ]
    model = nn.Sequential(*layers)
    x = rng.normal(size=(batch, *case.shape)).astype(np.float32)
    if case.trains:
        return model, [x, rng.integers(0, CLASSES, batch)]
    return model, [x, rng.normal(size=model(x).shape).astype(np.float32)]


class Far(FarEnd):
    """The far end of a worker: makes a competitor by name."""

    def load(self, case: Any, seed: int, batch: int) -> Loaded:
        self.about = case, batch, seed
        peer: Any = self.make()
        self.peer = peer
        found = [peer.numbers(peer.step(*peer.inputs)) for _ in range(CHECKED)]
        return Loaded(0.0, [number for numbers in found for number in numbers], [])

    def make(self) -> Any:
        backends = {"ours-eager": None, "ours-numpy": "numpy", "ours-compiled": "numba"}
        if self.name == "torch-eager":
            return Torch(*self.about)
        return Ours(*self.about, backend=backends[self.name])

    def memory(self) -> float | None:
        """The most bytes that a call takes beyond parameters and inputs; None where that cannot be seen."""
        if self.name == "torch-eager":
            return _growth(self.peer)
        tracemalloc.start(1)
        peer = self.make()
        peer.run(CHECKED)
        steady = _arrays()
        traced, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        peer.run(2)
        _, peak = tracemalloc.get_traced_memory()
        parameters = sum(p.size * 4 for p in peer.model.parameters()) * (3 if peer.case.trains else 1)
        inputs = sum(x.nbytes for x in peer.inputs)
        tracemalloc.stop()
        return float(max(0, steady + peak - traced - parameters - inputs))


def _arrays() -> int:
    """Bytes of the arrays that live."""
    found = [t.size for t in tracemalloc.take_snapshot().traces if t.domain == np.lib.tracemalloc_domain]
    return sum(found)


def _growth(peer: Any) -> float | None:
    """How much larger than before the process is at its largest while a call runs; before, free memory is given back."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def kilobytes(field: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))

    try:
        getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)(0)
        clear.write_text("5")
        before = kilobytes("VmRSS")
        peer.run(2)
        return 1e3 * max(0, kilobytes("VmHWM") - before)
    except OSError:
        return None


# ---- measuring -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write layers.json and layers.png; returns the results."""
    parser = measure.parser("layers", __doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=measure.positive, default=11, help="rounds of blocks (default: %(default)s)")
    measure.add_cores(parser)
    options = parser.parse_args(arguments)
    rounds, block, batch = (2, 0.001, 4) if options.quick else (options.rounds, 0.05, BATCH)
    results = measure.header("layers", options, "tinygrad_scratch", "torch", "numba")
    results["shapes"] = {}
    with measure.cores(options.cores):
        for name in options.cases:
            found = measure_case(CASES[name], options, rounds, block, batch)
            results["shapes"][name] = {"label": CASES[name].label, "peers": found}
            times = ", ".join(f"{peer} {f['best_us']:,.0f} us" for peer, f in found.items() if "best_us" in f)
            print(f"{CASES[name].label}: {times}", flush=True)
    print(f"\n{show(results, options.peers)}")
    measure.write_json(options.out / "layers.json", results)
    if importlib.util.find_spec("matplotlib"):
        label = f"time / {options.peers[0]}'s (bars: quartiles over the rounds)"
        measure.write_atomically(
            options.out / "layers.png", lambda path: steps.draw(results, options.peers, path, label)
        )
    print(f"\nWritten: {options.out / 'layers'}.json and .png")
    return results


def measure_case(case: Case, options: Any, rounds: int, block: float, batch: int) -> dict[str, Any]:
    """Every competitor's figures, each in a fresh process; timed in rounds, in a new random order every round."""
    pool = {peer: Worker(peer, Far) for peer in options.peers}
    measured = {peer: steps.Measured() for peer in pool}
    counts: dict[str, int] = {}
    expected: list[float] | None = None
    memory: dict[str, Any] = {}
    try:
        for peer, worker in pool.items():
            try:
                numbers = worker.ask("load", case, options.seed, batch).losses
                expected = expected or numbers
                measured[peer].disagreement = float(np.max(np.abs(np.array(numbers) / expected - 1)))
                counts[peer] = worker.calibrate(block)
            except RuntimeError as error:
                measured[peer].note = str(error)
        order = np.random.default_rng(options.seed)
        for _ in range(rounds):
            for peer in map(str, order.permutation(list(counts))):
                timed = pool[peer].block(counts[peer])
                measured[peer].seconds.append(timed.seconds)
                measured[peer].others.append(timed.others)
        memory = {peer: pool[peer].ask("memory") for peer in counts}
    finally:
        for worker in pool.values():
            worker.close()
    yardstick = next((measured[peer] for peer in counts), None)
    if yardstick is None:
        return {peer: {"note": figures.note} for peer, figures in measured.items()}
    return {peer: {**figures.report(yardstick), "memory": memory.get(peer)} for peer, figures in measured.items()}


def show(results: dict[str, Any], peers: Sequence[str]) -> str:
    """The three tables, and the notes."""

    def rows(cell: Any) -> list[list[str]]:
        return [[s["label"], *(cell(s["peers"][peer]) for peer in peers)] for s in results["shapes"].values()]

    def ratio(f: dict[str, Any]) -> str:
        return f"{f['ratio']:.2f}{'' if f['agrees'] else ' !'}" if "ratio" in f else "-"

    def megabytes(f: dict[str, Any]) -> str:
        return "-" if f.get("memory") is None else f"{f['memory'] / 1e6:,.1f}"

    tables = [
        measure.table([f"time / {peers[0]}, median", *peers], rows(ratio)),
        measure.table(["us, best", *peers], rows(lambda f: f"{f['best_us']:,.0f}" if "best_us" in f else "-")),
        measure.table(["MB", *peers], rows(megabytes)),
    ]
    found = [(peer, f) for s in results["shapes"].values() for peer, f in s["peers"].items()]
    notes = dict.fromkeys(f"{peer}: {f['note']}" for peer, f in found if f.get("note"))
    shares = [share for _, f in found for share in f.get("others", [])]
    load = f"Beside the blocks, other processes kept {np.mean(shares or [np.nan]):.2f} of {results['machine']['cores']} cores busy."
    return "\n".join(["\n\n".join(tables), "", *notes, load])
