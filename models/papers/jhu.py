"""Dykman and Langer, "Implementing and Analyzing Feedforward Deep Neural Networks with Backpropagation" (JHU), as data."""

from collections.abc import Callable, Sequence

import numpy as np

from models.papers import draw
from models.papers.claims import Check, Claim, Figure, Paper, Records, at_most, near, percent
from models.papers.draw import Curve, Panel
from models.papers.run import Record
from models.papers.tasks import Phase, Task

Judge = Callable[[Records], Sequence[Check]]

CHANCE = 80.0
"""An error above this, in per cent, is called chance: the most frequent digit alone would give 88.65 %."""


def network(*hidden: int, lr: float = 0.06, batch_size: int = 1, epochs: int = 5, **changes: object) -> Task:
    """784-hidden-10, sigmoid, the output's error itself as its delta, learning from wrong answers; 300,000 examples."""
    phase = Phase(
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        record=max(1, 1_000 // batch_size),
        evaluate=max(1, 10_000 // batch_size),
    )
    settings: dict[str, object] = {"init": "default", "loss": "bce", "only_wrong": True, **changes}
    return Task(sizes=(784, *hidden, 10), phases=(phase,), **settings)  # type: ignore[arg-type]


RATES = {f"lr {lr:g}": network(300, 100, lr=lr) for lr in (0.001, 0.01, 0.03, 0.06, 0.10, 0.20)}
SHAPES = {
    "shape 0 (350,175,85,40,20)": network(350, 175, 85, 40, 20, lr=0.01, probe=True),
    "shape 1 (300,150,75,40)": network(300, 150, 75, 40, lr=0.01, probe=True),
    "shape 2 (280,130,60)": network(280, 130, 60, lr=0.01),
    "shape 3 (250,100)": network(250, 100, lr=0.01),
    "shape 4 (175)": network(175, lr=0.01),
}
BATCHES = {"batch 5": network(300, 100, batch_size=5), "batch 100": network(300, 100, batch_size=100)}
BEST = {"(300,100), every answer": network(300, 100, lr=0.1, epochs=20, only_wrong=False)}
RULES = {
    "wrong answers alone": RATES["lr 0.1"],
    "every answer": network(300, 100, lr=0.1, only_wrong=False),
}
MENDED = {
    "batch 5, lr times 5": network(300, 100, lr=0.3, batch_size=5),
    "batch 100, lr times 100": network(300, 100, lr=6.0, batch_size=100),
    "batch 100, lr times 10": network(300, 100, lr=0.6, batch_size=100),
}
DEEP = {"shape 0": (350, 175, 85, 40, 20), "shape 1": (300, 150, 75, 40)}


def remedied(*hidden: int, **changes: object) -> Task:
    """A deep shape with all answers, batches of 50 and momentum: the common ground of the remedies."""
    settings: dict[str, object] = {"loss": "bce", "init": "default", **changes}
    lr, epochs = settings.pop("lr", 0.04), settings.pop("epochs", 6)
    phases = (Phase(epochs=epochs, lr=lr, batch_size=50, momentum=0.9),)  # type: ignore[arg-type]
    return Task(sizes=(784, *hidden, 10), phases=phases, **settings)  # type: ignore[arg-type]


REMEDIES: dict[str, dict[str, object]] = {
    "none": {"epochs": 3},
    "Glorot": {"init": "glorot", "std": 4.0},
    "ReLU": {"activation": "relu", "init": "he", "lr": 0.02},
    "auto-encoders": {"pretrain": 1, "init": "glorot", "std": 1.0},
    "Adam": {"optimizer": "adam", "lr": 0.001, "init": "glorot", "std": 1.0},
}
REMEDIED = {
    f"{shape}, {name}": remedied(*hidden, **changes)
    for shape, hidden in DEEP.items()
    for name, changes in REMEDIES.items()
}
PROBED = {name[:7]: task for name, task in SHAPES.items() if task.probe}


def errors(record: Record) -> list[float]:
    """The test error by evaluation, in per cent."""
    return [100 * (1 - accuracy) for accuracy in record["curve"]["test_accuracy"]]


def final(record: Record) -> float:
    return 100 - percent(record)


def reached(record: Record, error: float) -> float:
    """After how many thousand examples the test error is first below `error` per cent."""
    found = [60 * e for e, now in zip(record["curve"]["epoch"], errors(record), strict=True) if now < error]
    return found[0] if found else float("inf")


def judge_slow(r: Records) -> Sequence[Check]:
    record = r["lr 0.001"]
    falling = errors(record)[-1] < min(errors(record)[:-5])
    return [Check("final test error, still falling", "not converged", final(record), falling and final(record) > 10)]


def judge_below(name: str) -> Judge:
    def judged(r: Records) -> Sequence[Check]:
        return [at_most("final test error", final(r[name]), 10, says="< 10 %")]

    return judged


def judge_fast(r: Records) -> Sequence[Check]:
    times = {name: reached(record, 10) for name, record in r.items()}
    at_50 = errors(r["lr 0.1"])[min(5, len(errors(r["lr 0.1"])) - 1)]
    return [
        at_most("final test error", final(r["lr 0.1"]), 10, says="< 10 %"),
        Check(
            "thousand examples to a test error below 10 %, by rate",
            "0.10 is the fastest",
            ", ".join(f"{name[3:]}: {value:g}" for name, value in times.items()),
            times["lr 0.1"] == min(times.values()),
        ),
        Check("test error after 50,000 examples", "near convergence", at_50, at_50 < final(r["lr 0.1"]) + 5),
    ]


def judge_sweep(r: Records) -> Sequence[Check]:
    middle = max(final(r[f"lr {lr}"]) for lr in ("0.01", "0.03", "0.06", "0.1"))
    top = final(r["lr 0.2"])
    return [
        at_most("largest final test error, lr 0.01 to 0.10", middle, 10, says="< 10 %"),
        Check("final test error, lr 0.20", "back up", top, top > final(r["lr 0.1"])),
        Check("final test error, lr 0.10", "", final(r["lr 0.1"])),
    ]


def judge_batch_5(r: Records) -> Sequence[Check]:
    return [near("final test error", final(r["batch 5"]), 50, 15, says="about 50 %")]


def judge_batch_100(r: Records) -> Sequence[Check]:
    record = r["batch 100"]
    return [
        Check("final test error", "never below chance (90 %)", final(record), final(record) > CHANCE),
        Check("lowest test error on the way", "", min(errors(record))),
    ]


def judge_chance(name: str) -> Judge:
    def judged(r: Records) -> Sequence[Check]:
        return [Check("final test error", "chance", final(r[name]), final(r[name]) > CHANCE)]

    return judged


def judge_starts(r: Records) -> Sequence[Check]:
    (record,) = r.values()
    return [
        Check("final test error", "starts to learn", final(record), final(record) < CHANCE),
        Check("test error after 100,000 examples", "", errors(record)[min(10, len(errors(record)) - 1)]),
    ]


def judge_rapid(r: Records) -> Sequence[Check]:
    (record,) = r.values()
    return [
        at_most("final test error", final(record), 10, says="rapid, stable"),
        Check("thousand examples to a test error below 20 %", "", reached(record, 20), None, "{:.0f}"),
    ]


def judge_best(r: Records) -> Sequence[Check]:
    (record,) = r.values()
    return [
        at_most("test error", final(record), 4, says="< 4 %"),
        at_most("training error", 100 - percent(record, "train"), 1, says="< 1 %"),
    ]


def judge_rules(r: Records) -> Sequence[Check]:
    return [Check(f"{name}: final test error", "", final(record)) for name, record in r.items()]


def judge_mended(r: Records) -> Sequence[Check]:
    return [at_most(f"{name}: final test error", final(record), 10, says="< 10 %") for name, record in r.items()]


def shrinkage(record: Record) -> float:
    """The first layer's gradient norm as a share of the last layer's, before training."""
    norms = record["curve"]["gradients"][0]
    return float(norms[0] / norms[-1])


def judge_gradients(r: Records) -> Sequence[Check]:
    return [
        Check(f"{name}: gradient of the first layer, as a share of the last one's", "vanishing", shrinkage(record),
              shrinkage(record) < 1e-2, "{:.1e}")
        for name, record in r.items()
    ]  # fmt: skip


def draw_errors(r: Records) -> bytes:
    """The paper's form: the error of each thousand training examples; with it the test error."""
    parts = []
    for name, record in r.items():
        seen = [60 * epoch for epoch in record["record"]["epoch"]]
        training = [100 * (1 - accuracy) for accuracy in record["record"]["accuracy"]]
        tested = [60 * epoch for epoch in record["curve"]["epoch"]]
        curves = [Curve(seen, training, "training, each 1,000"), Curve(tested, errors(record), "test")]
        parts.append(Panel(name if len(r) > 1 else "", curves, "thousand examples", "error (%)", limits=(0, 100)))
    return draw.panels("", parts, columns=min(3, len(parts)))


def judge_remedies(r: Records) -> Sequence[Check]:
    checks = []
    for name, record in r.items():
        if name.endswith("none"):
            checks.append(Check(f"{name}: test error", "chance", final(record), final(record) > CHANCE))
        else:
            checks.append(at_most(f"{name}: test error", final(record), 4, says="< 4 %"))
    return checks


def draw_remedies(r: Records) -> bytes:
    parts = []
    for shape in DEEP:
        chosen = {name.split(", ")[1]: record for name, record in r.items() if name.startswith(shape)}
        curves = [Curve(record["curve"]["epoch"], errors(record), name) for name, record in chosen.items()]
        parts.append(
            Panel(f"{shape}: {DEEP[shape]}", curves, "epoch", "test error (%)", limits=(1, 100), logarithmic=True)
        )
    return draw.panels("", parts, columns=2)


def draw_gradients(r: Records) -> bytes:
    parts = []
    for name, record in r.items():
        norms = np.array(record["curve"]["gradients"])
        seen = [60 * epoch for epoch in record["curve"]["epoch"]]
        curves = [Curve(seen, norms[:, layer].tolist(), f"layer {layer + 1}") for layer in range(norms.shape[1])]
        parts.append(Panel(name, curves, "thousand examples", "gradient norm", logarithmic=True))
    return draw.panels("", parts, columns=2)


WHY_RATES = (
    "0.20 is below 10 % before 0.10 is, with either reading of the error that is propagated. Which of the two ends lower is "
    "chance: one run's error moves by a point in its last thousands of examples, and runs of one seed that differ in rounding "
    "alone ended either way."
)
WHY_BATCHES = (
    "With mean gradients at the same rate a batch of n makes n times fewer steps of the same size: slower (batches of 100 "
    "make 3,000 small steps in all), but not as slow as reported, with either reading of the error that is propagated. The "
    "rest is what the authors suspect, a bug in their batch code."
)


def only(tasks: dict[str, Task], *names: str) -> dict[str, Task]:
    return {name: tasks[name] for name in names}


def shape_claim(number: int, figure: int, says: str, judged: Judge) -> Claim:
    name = [*SHAPES][number]
    return Claim(f"jhu-shape-{number}", f"Fig. {figure}", f"{name[8:]}: {says}.", only(SHAPES, name), judged)


def shape_figure(number: int, figure: int) -> Figure:
    name = [*SHAPES][number]
    return Figure(f"fig{figure:02}", f"Fig. {figure}: hidden layers {name[8:]}.", only(SHAPES, name), draw_errors)


PAPER = Paper(
    name="jhu",
    title="Implementing and Analyzing Feedforward Deep Neural Networks with Backpropagation",
    authors="Andrew Dykman and Greg Langer, Johns Hopkins University",
    setting="784-hidden-10, sigmoid everywhere; online over 300,000 examples (five passes), learning only from examples "
    "that are answered wrongly; what is propagated back from the outputs is their difference from the label; batches use "
    "the mean gradient at the same rate.",
    choices=(
        "What is propagated back from the outputs is their difference from the label, as the text says (its equation has the "
        "sigmoid's slope for hidden layers only); that is the derivative of each output's cross-entropy. With the slope at the "
        "outputs too (half the squared error), lr 0.1 and 0.2 end with 6.3 and 5.2 % error, batches of 5 and 100 with 14.5 "
        "and 52 %, shape 2 with 12.7 % and shape 1 at chance.",
        "Weights and biases are uniform in +-1/sqrt(inputs); the paper does not say how they are drawn.",
        "The rate of the shapes is not given: 0.01, one of those of section 3.1. With 0.03 and 0.06 shape 1 leaves chance and "
        "ends with 26 and 12 % error; shape 0 stays at chance.",
    ),
    claims=(
        Claim("jhu-lr-0.001", "Fig. 1", "(300,100), lr 0.001: not converged after 300,000 examples.",
              only(RATES, "lr 0.001"), judge_slow),
        Claim("jhu-lr-0.01", "Fig. 2", "(300,100), lr 0.01: final error below 10 %.",
              only(RATES, "lr 0.01"), judge_below("lr 0.01")),
        Claim("jhu-lr-0.10", "Fig. 3", "(300,100), lr 0.10: below 10 %, the fastest to get there; near convergence by 50,000.",
              RATES, judge_fast, WHY_RATES),
        Claim("jhu-lr-sweep", "section 3.1", "Similarly low error, below 10 %, from lr 0.01 to 0.10; back up at 0.20.",
              RATES, judge_sweep, WHY_RATES),
        Claim("jhu-batch-5", "Fig. 5", "(300,100), lr 0.06, batches of 5: about 50 % error after 300,000 examples.",
              only(BATCHES, "batch 5"), judge_batch_5, WHY_BATCHES),
        Claim("jhu-batch-100", "Fig. 4", "(300,100), lr 0.06, batches of 100: never below chance; a bug is suspected.",
              only(BATCHES, "batch 100"), judge_batch_100, WHY_BATCHES),
        shape_claim(0, 6, "chance", judge_chance(next(iter(SHAPES)))),
        shape_claim(1, 7, "chance", judge_chance([*SHAPES][1])),
        shape_claim(2, 8, "starts to learn", judge_starts),
        shape_claim(3, 9, "rapid, stable", judge_rapid),
        shape_claim(4, 10, "rapid, stable", judge_rapid),
        Claim("jhu-best", "section 5.1", "Best cases: training error below 1 %, test error below 4 %.", BEST, judge_best),
        Claim("jhu-rules", "section 2.1", "Back-propagation only for an example that was answered wrongly, or for every one.",
              RULES, judge_rules, beyond=True),
        Claim("jhu-batch-mended", "section 3.2", "Why batches failed: the mean gradient at the same rate makes a hundredth of "
              "the steps, each of the same size. With the rate raised as the steps get fewer, batches learn.",
              MENDED, judge_mended, beyond=True),
        Claim("jhu-gradients", "section 3.3", "Each layer's gradient norm in training: it vanishes towards the inputs.",
              PROBED, judge_gradients, beyond=True),
        Claim("jhu-remedies", "section 5.2", "Named but not built: the two deep shapes that failed, trained to a test error "
              "below 4 % with Glorot's initialisation, with ReLU, with Adam, with layer-wise auto-encoders.",
              REMEDIED, judge_remedies, beyond=True),
    ),
    figures=(
        Figure("fig01", "Fig. 1: lr 0.001, hidden layers (300, 100).", only(RATES, "lr 0.001"), draw_errors),
        Figure("fig02", "Fig. 2: lr 0.01, hidden layers (300, 100).", only(RATES, "lr 0.01"), draw_errors),
        Figure("fig03", "Fig. 3: lr 0.10, hidden layers (300, 100).", only(RATES, "lr 0.1"), draw_errors),
        Figure("fig04", "Fig. 4: batches of 100, lr 0.06.", only(BATCHES, "batch 100"), draw_errors),
        Figure("fig05", "Fig. 5: batches of 5, lr 0.06.", only(BATCHES, "batch 5"), draw_errors),
        *(shape_figure(number, 6 + number) for number in range(5)),
        Figure("mended", "Batches with a rate raised as their steps get fewer.", MENDED, draw_errors),
        Figure("remedies", "The deep shapes with none and with each remedy.", REMEDIED, draw_remedies),
        Figure("gradients", "Norm of each layer's weight gradient in training.", PROBED, draw_gradients),
    ),
    headline=("jhu-best", "test error"),
)  # fmt: skip
