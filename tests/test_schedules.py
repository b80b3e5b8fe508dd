"""Schedules: closed forms, what others do to the rate, resuming, captured steps; and the same rates as torch's."""

import copy
import json
from importlib.util import find_spec
from math import cos, pi
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.errors import CaptureError
from tinygrad_scratch.optim import SGD, Adagrad, Adam, lr_scheduler
from tinygrad_scratch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)


def sgd(*rates: float, **options: Any) -> SGD:
    return SGD([{"params": [nn.Parameter([1.0])], "lr": lr} for lr in rates or (1.0,)], **options)


def rates_of(schedule: Any, steps: int) -> list[Any]:
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr())
        schedule.step()
    return found


class TestClosedForms:
    @given(st.integers(0, 30), st.floats(0.01, 2), st.integers(1, 7), st.floats(0.1, 1))
    def test_rates(self, epoch, base, period, gamma):
        forms = {
            "StepLR": (lambda o: StepLR(o, period, gamma), lambda e: base * gamma ** (e // period)),
            "MultiStepLR": (
                lambda o: MultiStepLR(o, [period, 2 * period, 2 * period], gamma),
                lambda e: base * gamma ** ((e >= period) + 2 * (e >= 2 * period)),
            ),
            "ExponentialLR": (lambda o: ExponentialLR(o, gamma), lambda e: base * gamma**e),
            "LinearLR": (
                lambda o: LinearLR(o, gamma, 0.25, period),
                lambda e: base * np.interp(e, [0, period], [gamma, 0.25]),
            ),
            "CosineAnnealingLR": (
                lambda o: CosineAnnealingLR(o, period, 0.05),
                lambda e: 0.05 + (base - 0.05) * (1 + cos(pi * e / period)) / 2,
            ),
            "LambdaLR": (lambda o: LambdaLR(o, lambda e: 1 / np.sqrt(e + 1)), lambda e: base / np.sqrt(e + 1)),
        }
        for name, (make, form) in forms.items():
            schedule = make(sgd(base, 10 * base))
            for _ in range(epoch):
                schedule.step()
            first, second = schedule.get_last_lr()
            assert first == pytest.approx(form(epoch), rel=1e-9), name
            if name != "CosineAnnealingLR":
                assert second == pytest.approx(10 * first, rel=1e-9), name
            assert [group["lr"] for group in schedule.optimizer.param_groups] == [first, second]

    def test_the_first_rate_is_there_at_once(self):
        optimizer = sgd(0.9)
        assert LinearLR(optimizer).get_last_lr() == [pytest.approx(0.3)]
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3)
        assert optimizer.param_groups[0]["initial_lr"] == 0.9

    def test_the_answer_is_a_copy(self):
        schedule = StepLR(sgd(), 1)
        schedule.get_last_lr()[0] = 5.0
        assert schedule.get_last_lr() == [1.0]

    def test_what_others_did_stays_as_a_factor(self):
        optimizer = sgd(1.0)
        schedule = ExponentialLR(optimizer, 0.5)
        schedule.step()
        optimizer.param_groups[0]["lr"] = 0.2
        schedule.step()
        assert schedule.get_last_lr() == [pytest.approx(0.1)]

    def test_two_schedules_multiply(self):
        optimizer = sgd(1.0)
        schedules = LinearLR(optimizer, 0.5, total_iters=2), ExponentialLR(optimizer, 0.9)
        for _ in range(4):
            for schedule in schedules:
                schedule.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.9**4)

    def test_one_cycle(self):
        optimizer = sgd(1.0, momentum=0.5)
        found, momenta = [], []
        schedule = OneCycleLR(optimizer, 2.0, total_steps=10)
        for _ in range(10):
            found.append(schedule.get_last_lr()[0])
            momenta.append(optimizer.param_groups[0]["momentum"])
            schedule.step()
        assert found[0] == pytest.approx(2 / 25)
        assert max(found) == found[2] == pytest.approx(2.0)
        assert found[-1] == pytest.approx(2 / 25e4)
        assert (momenta[0], momenta[2], momenta[-1]) == pytest.approx((0.95, 0.85, 0.95))
        assert found[:3] == sorted(found[:3])
        assert found[2:] == sorted(found[2:], reverse=True)
        with pytest.raises(ValueError, match="step 11 of OneCycleLR, whose total_steps is 10"):
            schedule.step()
        assert schedule.last_epoch == 10

    def test_plateau(self):
        optimizer = sgd(1.0, 0.002)
        schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=1, min_lr=[0.3, 0.0015])
        found = []
        for loss in [3, 2, 2, 2, 2, 2, 2, tg.Tensor(2.0), 2, 2, 2, 1]:
            schedule.step(loss)
            found.append(schedule.get_last_lr())
        firsts, seconds = zip(*found, strict=True)
        assert firsts == (1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)
        assert seconds[-1] == 0.0015
        assert schedule.best == 1


class TestState:
    MAKE = (
        ("StepLR", lambda o: StepLR(o, 3, 0.5)),
        ("MultiStepLR", lambda o: MultiStepLR(o, [2, 5, 5], 0.5)),
        ("ExponentialLR", lambda o: ExponentialLR(o, 0.8)),
        ("LinearLR", lambda o: LinearLR(o, 0.2, 0.9, 6)),
        ("CosineAnnealingLR", lambda o: CosineAnnealingLR(o, 7, 0.01)),
        ("LambdaLR", lambda o: LambdaLR(o, lambda e: 1 / (e + 1))),
        ("OneCycleLR", lambda o: OneCycleLR(o, [1.0, 2.0], 20, three_phase=True)),
        ("SequentialLR", lambda o: SequentialLR(o, [LinearLR(o, 0.1, total_iters=4), CosineAnnealingLR(o, 9)], [4])),
    )

    @pytest.mark.parametrize("make", [make for _, make in MAKE], ids=[name for name, _ in MAKE])
    def test_going_on_gives_the_same_rates(self, make):
        optimizer, other = sgd(1.0, 0.5, momentum=0.9), sgd(1.0, 0.5, momentum=0.9)
        schedule, resumed = make(optimizer), make(other)
        for _ in range(6):
            schedule.step()
        saved = json.loads(json.dumps(schedule.state_dict()))
        other.load_state_dict(json.loads(json.dumps(optimizer.state_dict())))
        resumed.load_state_dict(saved)
        assert resumed.get_last_lr() == schedule.get_last_lr()
        assert rates_of(resumed, 8) == rates_of(schedule, 8)
        for one, two in zip(optimizer.param_groups, other.param_groups, strict=True):
            assert one["momentum"] == two["momentum"]

    def test_a_plateau_goes_on(self):
        one, two = (ReduceLROnPlateau(sgd(), patience=1) for _ in range(2))
        one.step(1.0)
        one.step(2.0)
        two.load_state_dict(one.state_dict())
        for schedule in (one, two):
            schedule.step(2.0)
        assert one.get_last_lr() == two.get_last_lr() == [pytest.approx(0.1)]

    def test_resuming_by_the_count(self):
        optimizer = sgd(1.0)
        schedule = StepLR(optimizer, 2, 0.5)
        for _ in range(3):
            schedule.step()
        again = StepLR(optimizer, 2, 0.5, last_epoch=schedule.last_epoch)
        schedule = again
        assert (schedule.last_epoch, schedule.get_last_lr()) == (4, [0.25])
        with pytest.raises(KeyError, match=r"param_groups\[0\] has no 'initial_lr'"):
            StepLR(sgd(), 2, last_epoch=3)

    def test_state_of_an_object(self):
        class Halving:
            def __init__(self, by: float):
                self.by = by

            def __call__(self, epoch: int) -> float:
                return self.by**epoch

        schedule, other = LambdaLR(sgd(), Halving(0.5)), LambdaLR(sgd(), Halving(0.9))
        schedule.step()
        other.load_state_dict(copy.deepcopy(schedule.state_dict()))
        assert other.lr_lambdas[0].by == 0.5

    def test_what_is_missing_is_named(self):
        schedule = StepLR(sgd(), 2)
        before = schedule.state_dict()
        bad = {**before, "last_epoch": 9}
        del bad["gamma"]
        with pytest.raises(ValueError, match="lacks StepLR's gamma"):
            schedule.load_state_dict(bad)
        assert schedule.state_dict() == before


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda o: StepLR(o, 0), "step_size is 0: it must be 1 or larger"),
            (lambda o: CosineAnnealingLR(o, 0), "T_max is 0"),
            (lambda o: LinearLR(o, 0.0), r"start_factor is 0\.0 and end_factor 1\.0"),
            (lambda o: LambdaLR(o, [abs, abs]), "2 lr_lambdas for 1 groups"),
            (lambda o: OneCycleLR(o, 1.0), "needs total_steps, or epochs and steps_per_epoch"),
            (lambda o: OneCycleLR(o, 1.0, 10, pct_start=1.5), r"pct_start is 1\.5"),
            (lambda o: OneCycleLR(o, [1.0, 2.0], 10), "max_lr has 2 values for 1 groups"),
            (
                lambda o: OneCycleLR(Adagrad([nn.Parameter([1.0])]), 1.0, 10),
                "Adagrad has no momentum: pass cycle_momentum",
            ),
            (lambda o: ReduceLROnPlateau(o, "least"), "mode is 'least'"),
            (lambda o: ReduceLROnPlateau(o, factor=1.0), r"factor is 1\.0: it must be less than 1"),
            (lambda o: SequentialLR(o, [StepLR(o, 1)], [3]), "1 schedulers need 0 milestones, not 1"),
            (lambda o: SequentialLR(o, [StepLR(sgd(), 1)], []), r"schedulers\[0\] belongs to another optimizer"),
        ],
    )
    def test_options(self, make, message):
        with pytest.raises(ValueError, match=message):
            make(sgd())

    def test_types(self):
        with pytest.raises(TypeError, match="a schedule takes an Optimizer, not list"):
            StepLR([], 1)
        with pytest.raises(TypeError, match=r"schedulers\[0\] is ReduceLROnPlateau"):
            SequentialLR(o := sgd(), [ReduceLROnPlateau(o)], [])


class TestCaptured:
    def test_a_captured_step_takes_the_new_rate(self):
        def train(capture: bool) -> list[float]:
            p = nn.Parameter([1.0], np.float64)
            optimizer = Adam([p], lr=0.1)
            schedule = OneCycleLR(optimizer, 0.2, 12)

            def step(x):
                loss = np.sum((p - x) ** 2)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                return loss

            run = tg.capture(step, backend="numpy", rewrites=False) if capture else step
            found = []
            for _ in range(12):
                run(np.zeros(1))
                schedule.step()
                found.append(p.item())
            assert not capture or [plan.calls for plan in run.plans] == [10]
            return found

        assert train(True) == train(False)

    def test_a_step_of_a_schedule_within_is_refused(self):
        optimizer = sgd()
        schedule = StepLR(optimizer, 1)
        with pytest.raises(CaptureError, match=r"call it outside, after the captured step"):
            tg.capture(lambda x: (schedule.step(), x * 2)[1], backend="numpy")(np.ones(2))
        assert schedule.last_epoch == 0


needs_torch = pytest.mark.skipif(
    find_spec("torch") is None, reason="torch is not installed: parity with it is not checked"
)

PARITY: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 3}),
    ("StepLR", {"step_size": 1, "gamma": 0.7}),
    ("MultiStepLR", {"milestones": [2, 5, 5, 9], "gamma": 0.3}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 7}),
    ("CosineAnnealingLR", {"T_max": 8}),
    ("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.01}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 1 / (epoch + 1) ** 0.5}),
    ("LambdaLR", {"lr_lambda": [lambda epoch: 0.9**epoch, lambda epoch: 1 + epoch]}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 24}),
    ("OneCycleLR", {"max_lr": [0.5, 1.0], "epochs": 5, "steps_per_epoch": 6, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 30, "three_phase": True, "pct_start": 0.2, "base_momentum": 0.5}),
]


def two_groups(kit: Any, name: str, make: Any) -> Any:
    options = {"momentum": 0.9} if name == "SGD" else {}
    return getattr(kit, name)([{"params": [make()], "lr": 0.1}, {"params": [make()], "lr": 0.4}], **options)


def pair_of_optimizers(name: str = "SGD") -> tuple[Any, Any]:
    import torch

    theirs = two_groups(torch.optim, name, lambda: torch.ones(1, requires_grad=True))
    return two_groups(tg.optim, name, lambda: nn.Parameter([1.0])), theirs


def step_both(ours: Any, theirs: Any, *args: Any) -> None:
    theirs.optimizer.step()  # else torch warns of the order of calls
    ours.step(*args)
    theirs.step(*args)


def assert_same_groups(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-9, atol=1e-15)
    for mine, its in zip(ours.optimizer.param_groups, theirs.optimizer.param_groups, strict=True):
        for key in ("lr", "momentum", "betas"):
            if key in mine:
                np.testing.assert_allclose(mine[key], its[key], rtol=1e-9, atol=1e-15)


def both_schedules(optimizers: Any, make: Any) -> tuple[Any, Any]:
    import torch

    return make(lr_scheduler, optimizers[0]), make(torch.optim.lr_scheduler, optimizers[1])


@needs_torch
class TestTorch:
    @pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
    @pytest.mark.parametrize(("name", "options"), PARITY, ids=lambda x: x if isinstance(x, str) else "")
    def test_rates(self, name, options, optimizer):
        ours, theirs = both_schedules(pair_of_optimizers(optimizer), lambda kit, o: getattr(kit, name)(o, **options))
        for _ in range(24):
            assert_same_groups(ours, theirs)
            step_both(ours, theirs)

    @pytest.mark.parametrize(
        ("name", "options"),
        [p for p in PARITY if p[0] not in ("OneCycleLR",)],
        ids=lambda x: x if isinstance(x, str) else "",
    )
    def test_state_moves_both_ways(self, name, options):
        def make(kit, o):
            return getattr(kit, name)(o, **options)

        first, second = (both_schedules(pair_of_optimizers(), make) for _ in range(2))
        for _ in range(4):
            step_both(*first)
        second[0].load_state_dict(first[1].state_dict())
        second[1].load_state_dict(first[0].state_dict())
        for schedule, source in zip(second, first, strict=True):
            for group, other in zip(schedule.optimizer.param_groups, source.optimizer.param_groups, strict=True):
                group["lr"] = other["lr"]
        for _ in range(6):
            step_both(*second)
            assert_same_groups(*second)

    @pytest.mark.parametrize("milestones", [[3, 8], [1, 2]])
    def test_sequences(self, milestones):
        def make(kit, o):
            parts = [kit.LinearLR(o, 0.1, total_iters=3), kit.StepLR(o, 2, 0.5), kit.CosineAnnealingLR(o, 6, 0.01)]
            return kit.SequentialLR(o, parts, milestones)

        ours, theirs = both_schedules(pair_of_optimizers(), make)
        for _ in range(15):
            assert_same_groups(ours, theirs)
            step_both(ours, theirs)

    def test_rates_that_were_changed_and_two_schedules(self):
        def make(kit, o):
            return kit.LinearLR(o, 0.2, total_iters=4), kit.CosineAnnealingLR(o, 20, 0.001), kit.StepLR(o, 3, 0.5)

        ours, theirs = both_schedules(pair_of_optimizers(), make)
        for n in range(12):
            for one, two in zip(ours, theirs, strict=True):
                step_both(one, two)
            assert_same_groups(ours[-1], theirs[-1])
            if n == 5:
                for schedule in (ours[0], theirs[0]):
                    schedule.optimizer.param_groups[0]["lr"] = 0.3

    @pytest.mark.parametrize(
        "options",
        [{"patience": 2}, {"mode": "max", "factor": 0.5, "patience": 1, "cooldown": 2, "min_lr": 0.01},
         {"threshold_mode": "abs", "threshold": 0.3, "patience": 0, "eps": 1e-3}],
    )  # fmt: skip
    def test_plateaus(self, options):
        ours, theirs = both_schedules(pair_of_optimizers(), lambda kit, o: kit.ReduceLROnPlateau(o, **options))
        rng = np.random.default_rng(0)
        for _ in range(30):
            step_both(ours, theirs, float(rng.random()))
            assert_same_groups(ours, theirs)
            assert (ours.num_bad_epochs, ours.best) == (theirs.num_bad_epochs, theirs.best)
