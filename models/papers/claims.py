"""What a paper says, and what is made of it: claims with their tasks and checks, figures, verdicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.papers.run import Record
from models.papers.tasks import Task

Records = Mapping[str, Record]
"""The record of each of a claim's tasks, by the name that the claim gives it; all of one seed."""

MATCHED, PARTLY, MISSED, SHOWN, QUICK, NOT_RUN = "matched", "partly", "not matched", "shown", "quick", "not run"


@dataclass(frozen=True)
class Check:
    """One thing that a claim says. measured: a number or words; held: whether it is so, None where nothing is judged.

    form: how a number is written, such as "{:.2f} %".
    """

    what: str
    reported: str
    measured: float | str
    held: bool | None = None
    form: str = "{:.2f} %"

    def text(self) -> str:
        return self.measured if isinstance(self.measured, str) else self.form.format(self.measured)


def at_least(
    what: str, measured: float, reported: float, slack: float = 0.0, form: str = "{:.2f} %", says: str | None = None
) -> Check:
    """That `measured` reaches what is `reported`, less `slack`."""
    return Check(what, says or form.format(reported), measured, measured >= reported - slack, form)


def at_most(
    what: str, measured: float, reported: float, slack: float = 0.0, form: str = "{:.2f} %", says: str | None = None
) -> Check:
    """That `measured` is as low as what is `reported`, plus `slack`."""
    return Check(what, says or form.format(reported), measured, measured <= reported + slack, form)


def near(
    what: str, measured: float, reported: float, within: float, form: str = "{:.2f} %", says: str | None = None
) -> Check:
    """That the two differ by no more than `within`."""
    return Check(what, says or form.format(reported), measured, abs(measured - reported) <= within, form)


@dataclass(frozen=True)
class Claim:
    """A row of the report.

    where: the figure, table or section. says: what the paper reports. why: what is known of a difference, and what other
    readings of the setting gave. beyond: not the paper's own, but the same done right.
    """

    id: str
    where: str
    says: str
    tasks: Mapping[str, Task]
    judge: Callable[[Records], Sequence[Check]]
    why: str = ""
    beyond: bool = False


@dataclass(frozen=True)
class Figure:
    """A picture in the paper's own form. draw: from the records of its tasks to PNG bytes."""

    name: str
    caption: str
    tasks: Mapping[str, Task]
    draw: Callable[[Records], bytes]


@dataclass(frozen=True)
class Paper:
    """A paper as data. headline: the claim, and the check of it, that stand for the whole."""

    name: str
    title: str
    authors: str
    setting: str
    choices: Sequence[str]
    claims: Sequence[Claim]
    figures: Sequence[Figure]
    headline: tuple[str, str]
    data: Sequence[str] = field(default=("mnist",))


@dataclass
class Outcome:
    """A claim with what was measured: for each check, its values for the seeds."""

    claim: Claim
    seeds: list[int]
    checks: list[list[Check]]
    verdict: str
    note: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        measured = {
            checks[0].what: [c.measured for c in checks] if len(checks) > 1 else checks[0].measured
            for checks in self.checks
        }
        return {
            "id": self.claim.id,
            "where": self.claim.where,
            "reported": self.claim.says,
            "measured": measured,
            "seeds": self.seeds,
            "verdict": self.verdict,
            "note": self.note,
            "checks": [
                {"what": c.what, "reported": c.reported, "measured": shown([c, *more]), "held": c.held}
                for c, *more in self.checks
            ],
            "cpu_seconds": round(self.seconds, 1),
            "settings": {label: task.to_json() for label, task in self.claim.tasks.items()},
        }


def judge(claim: Claim, records: Mapping[int, Records], missing: str, quick: bool) -> Outcome:
    """The claim's outcome from the records of each seed; `missing` says why there are none, if so."""
    if not records:
        return Outcome(claim, [], [], NOT_RUN, missing, 0.0)
    seeds = sorted(records)
    by_seed = [list(claim.judge(records[seed])) for seed in seeds]
    checks = [list(column) for column in zip(*by_seed, strict=True)]
    seconds = sum(record["seconds"]["cpu"] for seed in seeds for record in records[seed].values())
    verdict = QUICK if quick else verdict_of([check.held for column in checks for check in column])
    note = "a run too short to judge by; it shows that everything works" if quick else claim.why
    return Outcome(claim, seeds, checks, verdict, note, seconds)


def verdict_of(held: Sequence[bool | None]) -> str:
    """One word for all checks.

    >>> verdict_of([True, None, True]), verdict_of([True, False]), verdict_of([False]), verdict_of([None])
    ('matched', 'partly', 'not matched', 'shown')
    """
    judged = [h for h in held if h is not None]
    if not judged:
        return SHOWN
    return MATCHED if all(judged) else PARTLY if any(judged) else MISSED


def shown(checks: Sequence[Check]) -> str:
    """What was measured, in words: a number, or the mean of the seeds and their range."""
    first = checks[0]
    if len(checks) == 1 or isinstance(first.measured, str):
        return first.text() if len({check.measured for check in checks}) == 1 else "; ".join(c.text() for c in checks)
    values = np.array([check.measured for check in checks], float)
    mean, low, high = (first.form.format(value) for value in (values.mean(), values.min(), values.max()))
    return f"{mean} ({low} to {high})"


# -- what is read off a record ---------------------------------------------------------------------------------------


def percent(record: Record, part: str = "test") -> float:
    """The accuracy at the end."""
    return float(100 * record["final"][part]["accuracy"])


def best(record: Record, name: str = "test_accuracy") -> tuple[float, float]:
    """The best accuracy of a curve in per cent, and the epoch in which it was reached."""
    values = np.array(record["curve"][name])
    place = int(values.argmax())
    return float(100 * values[place]), float(record["curve"]["epoch"][place])


def at_epoch(record: Record, epoch: float, name: str = "test_accuracy") -> float:
    """The accuracy, in per cent, of a curve at an epoch, or at the end of a shorter run."""
    epochs = np.array(record["curve"]["epoch"])
    return float(100 * record["curve"][name][min(int(np.searchsorted(epochs, epoch - 1e-9)), len(epochs) - 1)])


def first_epoch(epochs: Sequence[float], values: Sequence[float], level: float) -> float:
    """When a curve first reaches a level; infinity if never.

    >>> first_epoch([0, 1, 2], [0.1, 0.5, 0.9], 0.4)
    1.0
    """
    return next((float(epoch) for epoch, value in zip(epochs, values, strict=True) if value >= level), float("inf"))
