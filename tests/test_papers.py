"""The reproduction of the papers: the rules of training, runs, claims, the engine, and the command as users meet it."""

import html.parser
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from capturing import BACKENDS, compiled_steps  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from models import rules
from models.cli import main
from models.data import load_mnist, one_hot
from models.files import RunError
from models.losses import LOSSES
from models.mlp import MLP
from models.papers import NAMES, engine
from models.papers.claims import Check, Claim, judge, shown
from models.papers.commands import paper
from models.papers.run import Run, dataset, run, spans
from models.papers.tasks import Phase, Task
from models.training import predict

SMALL = Task(sizes=(784, 6, 10), examples=200, tests=100, phases=(Phase(epochs=2, lr=0.5, batch_size=20),))


def record_of(task: Task) -> dict:
    return run(task, backend="numpy")[0]


def weights_of(task: Task) -> dict[str, np.ndarray]:
    return run(replace(task, keep_weights=True), backend="numpy")[1]


class TestRules:
    @given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 99))
    def test_only_wrong_answers_give_a_gradient(self, count, classes, seed):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(count, classes))
        labels = rng.integers(0, classes, count)
        wanted = np.eye(classes)[labels]
        wrong = logits.argmax(axis=1) != labels
        p = 1 / (1 + np.exp(-logits))
        for name, expected in (
            ("squared_error", 2 * (p - wanted) * p * (1 - p)),
            ("bce", p - wanted),
        ):
            made = tg.grad(lambda t, name=name: rules.adapted(name, 3.0, only_wrong=True).value(t, wanted))(logits)
            np.testing.assert_allclose(made, 3 * expected * wrong[:, None] / count, atol=1e-12)

    @pytest.mark.parametrize("name", LOSSES)
    def test_weighted_is_the_mean_for_weights_of_one(self, name, rng):
        logits, labels = rng.normal(size=(5, 10)), rng.integers(0, 10, 5)
        targets = LOSSES[name].targets(labels)
        mean = float(LOSSES[name].value(logits, targets))
        assert float(rules.weighted(name, logits, targets, np.ones(5))) == pytest.approx(mean)

    def test_only_wrong_needs_one_hot_targets(self):
        with pytest.raises(ValueError, match="one-hot"):
            rules.adapted("cross_entropy", only_wrong=True)

    def test_rates_of_layers(self):
        model = MLP((4, 3, 2), rng=0)
        optimizer = tg.optim.SGD(rules.groups(model, (0.5, 2.0)), lr=1.0)
        rules.set_options(optimizer, (0.5, 2.0), 0.1, momentum=0.3)
        assert [(g["lr"], g["momentum"], len(g["params"])) for g in optimizer.param_groups] == [
            (0.05, 0.3, 2),
            (0.2, 0.3, 2),
        ]
        with pytest.raises(ValueError, match="2 fully connected layers"):
            rules.groups(model, (1.0,))

    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
    def test_class_inaccuracy(self, pairs):
        labels, guesses = (np.array(column) for column in zip(*pairs, strict=True))
        made = rules.class_inaccuracy(labels, guesses, 5)
        for label in range(5):
            of_it = [g != c for c, g in pairs if c == label]
            assert made[label] == pytest.approx(np.mean(of_it) if of_it else 0)

    @given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.integers(0, 20))
    def test_spans_cover_all_steps_and_stop_where_wanted(self, last, record, evaluate, done):
        made = list(spans(last, record, evaluate, done))
        assert [step for start, stop in made for step in range(start, stop)] == list(range(last))
        ends = {stop for _, stop in made}
        assert ends == {
            s for s in range(1, last + 1) if s == last or not (done + s) % record or not (done + s) % evaluate
        }


class TestRuns:
    def test_a_run_is_what_its_task_says(self):
        record = record_of(replace(SMALL, validation=50, measured=("validation", "train")))
        assert record["curve"]["epoch"] == [0, 1, 2]
        assert record["curve"]["step"] == [0, 10, 20]
        assert record["record"]["epoch"] == [1, 2]
        assert set(record["final"]) == {"test", "validation", "train"}
        assert record["final"]["train"]["loss"] < record["curve"]["train_loss"][0]
        assert np.mean(record["classes"]) > 0

    def test_it_is_plain_gradient_descent(self):
        """Against the same steps with derivatives written by hand."""
        task = replace(SMALL, scale=0.5, phases=(Phase(epochs=1, lr=0.3, batch_size=40, momentum=0.5),))
        start = weights_of(replace(task, phases=(Phase(epochs=1, lr=0.0, batch_size=40),)))
        w1, b1, w2, b2 = (start[name].astype(float) for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
        mnist = load_mnist()
        x, y = mnist.x_train[:200].reshape(200, 784) / 255, one_hot(mnist.y_train[:200])
        velocity = [np.zeros_like(a) for a in (w1, b1, w2, b2)]
        for rows in np.random.default_rng([0, 2, 1]).permutation(200).reshape(5, 40):
            h = 1 / (1 + np.exp(-(x[rows] @ w1.T + b1)))
            p = 1 / (1 + np.exp(-(h @ w2.T + b2)))
            d2 = (p - y[rows]) * p * (1 - p) / 40
            d1 = d2 @ w2 * h * (1 - h)
            for v, a, g in zip(
                velocity, (w1, b1, w2, b2), (d1.T @ x[rows], d1.sum(0), d2.T @ h, d2.sum(0)), strict=True
            ):
                v *= 0.5
                v += g
                a -= 0.3 * v
        made = weights_of(task)
        for name, expected in zip(("0.weight", "0.bias", "2.weight", "2.bias"), (w1, b1, w2, b2), strict=True):
            np.testing.assert_allclose(made[name], expected, atol=2e-5)

    def test_batch_size_switches_in_mid_training(self):
        phases = (
            Phase(epochs=1, lr=0.1, batch_size=1, momentum=0.8),
            Phase(epochs=2, lr=0.3, batch_size=50, momentum=0.8),
        )
        record = record_of(replace(SMALL, phases=phases))
        assert record["curve"]["step"] == [0, 200, 204, 208]
        assert record["curve"]["epoch"] == [0, 1, 2, 3]

    def test_a_phase_of_some_steps_measured_after_each(self):
        phases = (Phase(epochs=1, lr=0.1, batch_size=20), Phase(epochs=9, lr=0.1, steps=7, record=1, evaluate=1))
        record = record_of(replace(SMALL, phases=phases))
        assert record["curve"]["step"] == [0, *range(10, 18)]

    def test_evaluation_changes_nothing(self):
        often = replace(SMALL, phases=(Phase(epochs=2, lr=0.5, batch_size=20, evaluate=1, record=1),))
        one, other = weights_of(SMALL), weights_of(often)
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)

    def test_stops_at_an_inaccuracy(self):
        task = replace(SMALL, classes=True, stop_at=0.75, phases=(Phase(epochs=50, lr=2.0, batch_size=20, evaluate=1),))
        record = record_of(task)
        rows = np.mean(record["curve"]["test_classes"], axis=1)
        assert rows[-1] <= 0.75 < rows[:-1].min()
        assert record["steps"] < task.steps

    def test_schedule_and_rates(self):
        """With a rate of 0 a layer stays as it was; the second epoch moves 1/sqrt(2) times as far at the same gradient."""
        start = weights_of(replace(SMALL, phases=(Phase(epochs=1, lr=0.0, batch_size=20),)))
        made = weights_of(replace(SMALL, rates=(0.0, 1.0), schedule="inverse_sqrt"))
        assert made["0.weight"].tobytes() == start["0.weight"].tobytes()
        assert made["2.weight"].tobytes() != start["2.weight"].tobytes()
        assert [rules.SCHEDULES["inverse_sqrt"](epoch) for epoch in (1, 4)] == [1.0, 0.5]

    def test_a_split_drawn_in_each_epoch(self):
        """The weighted step over all examples is the step over those that were drawn."""
        task = Task(sizes=(784, 1), digit=0, resplit=True, examples=30, tests=50, std=0.1,
                    phases=(Phase(epochs=1, lr=0.7, batch_size=30),), keep_weights=True)  # fmt: skip
        start = weights_of(replace(task, phases=(Phase(epochs=1, lr=0.0, batch_size=30),)))
        mnist = load_mnist()
        x, y = mnist.x_train[:30].reshape(30, 784) / 255, (mnist.y_train[:30] == 0)[:, None]
        rows = np.random.default_rng([0, 2, 1]).permutation(30)[:20]
        w = start["0.weight"].astype(float)
        p = 1 / (1 + np.exp(-(x[rows] @ w.T + start["0.bias"])))
        gradient = (2 * (p - y[rows]) * p * (1 - p)).T @ x[rows] / 20
        np.testing.assert_allclose(weights_of(task)["0.weight"], w - 0.7 * gradient, atol=1e-5)
        record = record_of(task)
        assert len(record["record"]["validation_accuracy"]) == 1

    def test_gradient_norms(self):
        record = record_of(replace(SMALL, sizes=(784, 8, 6, 10), probe=True))
        assert np.shape(record["curve"]["gradients"]) == (3, 3)
        assert np.min(record["curve"]["gradients"]) > 0

    def test_dropout_is_off_when_measured(self):
        made = Run(replace(SMALL, dropout=0.5), dataset("mnist", None), "numpy", lambda done: None)
        assert made.logits(made.train.x[:5]).tobytes() == made.logits(made.train.x[:5]).tobytes()
        assert made.model.training
        made.go()
        assert made.steps == 20

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_captured_forward_measures_the_same(self, backend, monkeypatch):
        task = replace(SMALL, dropout=0.3, tests=220, loss="cross_entropy")
        assert Run(task, dataset("mnist", None), backend, lambda done: None).forward is None
        monkeypatch.setattr("models.papers.run.COMPILED_FROM", 0)
        monkeypatch.setattr("models.papers.run.CHUNK", 50)
        made = Run(task, dataset("mnist", None), backend, lambda done: None)
        for _ in range(2):
            made.go()
            logits = made.logits(made.parts["test"].x)
            np.testing.assert_allclose(logits, predict(made.model, made.parts["test"].x), rtol=1e-4, atol=1e-5)
            assert made.model.training
        assert [plan.calls > 3 for plan in made.forward.plans] == [True]  # the 20 that are left of 220 have none

    def test_a_convolutional_network_takes_images(self):
        phases = (Phase(epochs=1, lr=1e-3, batch_size=20),)
        task = Task(network="lenet5", loss="cross_entropy", optimizer="adam", examples=100, tests=50, phases=phases)
        record = record_of(task)
        assert record["steps"] == 5
        assert record["final"]["test"]["loss"] < record["curve"]["test_loss"][0]

    def test_missing_data_says_what_to_do(self, tmp_path):
        with pytest.raises(RunError, match="--data-dir"):
            run(replace(SMALL, data="cifar10"), data_dir=str(tmp_path))


class TestTasks:
    def test_the_key_depends_on_every_setting(self):
        others = [replace(SMALL, **change) for change in ({"seed": 1}, {"std": 0.5}, {"rates": (1.0, 1.0)})]
        others.append(replace(SMALL, phases=(replace(SMALL.phases[0], lr=0.1),)))
        assert len({task.key for task in (SMALL, *others)}) == 5
        assert SMALL.key == replace(SMALL, seed=0).key

    @pytest.mark.parametrize("name", NAMES)
    def test_papers_are_whole(self, name):
        one = paper(name)
        assert one.name == name
        assert len({claim.id for claim in one.claims}) == len(one.claims)
        assert all(claim.id.startswith(name) and claim.says for claim in one.claims)
        assert len({figure.name for figure in one.figures}) == len(one.figures)
        assert one.headline[0] in {claim.id for claim in one.claims}
        known = {task.key for claim in one.claims for task in claim.tasks.values()}
        assert {task.key for figure in one.figures for task in figure.tasks.values()} <= known
        for claim in one.claims:
            for task in claim.tasks.values():
                assert task.quick().steps <= 3000
                assert task.quick().quick() == task.quick()


class TestClaims:
    def made(self, *held, seeds=1):
        claim = Claim(
            "x-1", "Fig. 1", "says", {}, lambda r: [Check(f"c{n}", "", r["v"], h) for n, h in enumerate(held)]
        )
        records = {seed: {"v": 90.0 + seed} for seed in range(seeds)}
        records = {seed: {**r, "t": {"seconds": {"cpu": 1.0}}} for seed, r in records.items()}
        return claim, {seed: _Records(r) for seed, r in records.items()}

    def test_verdicts(self):
        for held, verdict in [
            ((True, None), "matched"),
            ((True, False), "partly"),
            ((False,), "not matched"),
            ((None,), "shown"),
        ]:
            claim, records = self.made(*held)
            assert judge(claim, records, "", quick=False).verdict == verdict
            assert judge(claim, records, "", quick=True).verdict == "quick"
        assert judge(claim, {}, "no data", quick=False).to_json()["note"] == "no data"

    def test_several_seeds(self):
        claim, records = self.made(True, seeds=3)
        made = judge(claim, records, "", quick=False).to_json()
        assert made["seeds"] == [0, 1, 2]
        assert made["measured"] == {"c0": [90.0, 91.0, 92.0]}
        assert made["checks"][0]["measured"] == "91.00 % (90.00 % to 92.00 %)"
        assert made["cpu_seconds"] == 3.0

    def test_words_of_several_seeds(self):
        assert shown([Check("a", "", "x"), Check("a", "", "y")]) == "x; y"


class _Records(dict):
    """Records whose judge looks at a number: only what takes time is a record."""

    def values(self):
        return [value for value in super().values() if isinstance(value, dict)]


class TestEngine:
    def work(self, folder, **tasks):
        return engine.Work(folder, tasks, backend="numpy", say=lambda line: None)

    def test_what_is_done_is_not_done_again(self, tmp_path):
        work = self.work(tmp_path, a=SMALL, b=replace(SMALL, seed=1), same=SMALL)
        assert len(work.missing()) == 2
        work.do(lambda: engine.processes(2))
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        assert len(before) == 2
        assert not work.missing()
        work.do(lambda: pytest.fail("nothing is missing"))
        engine.record_path(tmp_path, SMALL).write_text('{"cut sho')
        assert [name for name, _ in work.missing().values()] == ["a"]
        work.do(lambda: engine.processes(1))
        assert engine.load(tmp_path, SMALL)["final"] == record_of(SMALL)["final"]

    def test_a_killed_process_costs_its_runs_only(self, tmp_path):
        """The first process that begins is killed; what it did not finish is begun anew."""
        work, killed = self.work(tmp_path, a=SMALL, b=replace(SMALL, seed=1)), []

        def begin():
            pool = engine.processes(1)
            if not killed:
                killed.append(True)
                return _Killing(pool)
            return pool

        work.do(begin)
        assert killed
        assert not work.missing()

    def test_processes_that_keep_dying(self, tmp_path):
        work = self.work(tmp_path, a=SMALL)
        with pytest.raises(RunError, match="killed 3 times"):
            work.do(lambda: _Killing(engine.processes(1)))

    def test_missing_data_is_no_end(self, tmp_path, monkeypatch):
        for name in ("TINYGRAD_SCRATCH_DATA", "XDG_CACHE_HOME"):
            monkeypatch.setenv(name, str(tmp_path / "none"))
        work = self.work(tmp_path / "runs", a=replace(SMALL, data="cifar10"), b=SMALL)
        work.do(lambda: engine.processes(1))
        assert not work.missing()
        assert "--data-dir" in next(iter(work.failures.values()))


class _Killing:
    """A pool whose processes are killed when the first run has been handed to them."""

    def __init__(self, pool):
        self.pool = pool

    def __enter__(self):
        self.executor, told = self.pool.__enter__()
        return self, told

    def submit(self, *arguments):
        future = self.executor.submit(*arguments)
        for process in list(self.executor._processes.values()):
            os.kill(process.pid, signal.SIGKILL)
        return future

    def __exit__(self, *error):
        return self.pool.__exit__(*error)


class Outline(html.parser.HTMLParser):
    """What opens must close; what is fetched from elsewhere is noted."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.images, self.outside = [], [], 0, []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        source = given.get("src") or given.get("href") or ""
        self.images += source.startswith("data:image/png;base64,")
        if source and not source.startswith(("data:", "#")):
            self.outside.append(source)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


LOOK = """<!DOCTYPE html><iframe style="width: %dpx; height: 900px; border: 0" src="%s"></iframe><pre></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  document.querySelector("pre").textContent = JSON.stringify({
    scroll: root.scrollWidth, client: root.clientWidth, back: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    pictures: [...page.images].map(image => image.complete && image.naturalWidth > 100),
  });
};
</script>"""
"""A page that shows the report in a frame of a certain width, and says what it sees of it."""


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> Path:
    """The folder of a quick reproduction of two claims of one paper. Tests read it only."""
    out = tmp_path_factory.mktemp("reproduced")
    for claim in ("kth-batch", "kth-lr"):
        assert main(["reproduce", "kth", "--claim", claim, "--quick", "--out", str(out), "--jobs", "2"]) == 0
    return out / "quick"


def gone(group: int) -> bool:
    """Whether all processes of the group end within some seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


class TestCommand:
    def test_results(self, reproduced):
        results = json.loads((reproduced / "kth" / "results.json").read_text())
        assert [result["id"] for result in results] == ["kth-lr", "kth-batch"]
        for result in results:
            assert {"id", "reported", "measured", "seeds", "verdict", "note"} <= set(result)
            assert result["verdict"] == "quick"
        assert (reproduced / "kth" / "fig08.png").read_bytes().startswith(b"\x89PNG")

    def test_report(self, reproduced):
        text = (reproduced / "report.html").read_text()
        outline = Outline(text)
        assert outline.images == 2
        assert not outline.outside
        assert {"kth", "kth-lr", "kth-batch"} <= set(outline.ids)
        assert "prefers-color-scheme: dark" in text

    @pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
    def test_report_in_a_browser(self, reproduced, tmp_path, width, dark):
        """No sideways scrolling, every picture drawn, the colours of the scheme that is asked for."""
        browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if browser is None:
            pytest.skip("no Chromium is installed")
        (tmp_path / "look.html").write_text(LOOK % (width, (reproduced / "report.html").as_uri()))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
        options += ["--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"]
        options += ["--blink-settings=preferredColorScheme=0"] * dark
        look = subprocess.run(
            [browser, *options, (tmp_path / "look.html").as_uri()],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        seen = json.loads(look.stdout.partition("<pre>")[2].partition("</pre>")[0])
        assert seen["scroll"] <= seen["client"] <= width
        assert seen["pictures"] == [True, True]
        assert seen["back"] == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 255)")

    def test_nothing_is_done_twice(self, reproduced, capsys):
        assert main(["reproduce", "kth", "--claim", "kth-lr", "--quick", "--out", str(reproduced.parent)]) == 0
        assert "4 runs, 0 of them to be done" in capsys.readouterr().out

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_stopped_and_continued(self, tmp_path, number):
        """Stopped after the first run: it is kept, nothing is left running, and the same command does the others."""
        command = [
            sys.executable,
            "-m",
            "models",
            "reproduce",
            "kth",
            "--claim",
            "kth-momentum",
            "--quick",
            "--jobs",
            "1",
        ]
        command += ["--out", str(tmp_path)]
        root = Path(rules.__file__).parent.parent
        with subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's "&" ignores it
        ) as started:  # fmt: skip
            lines = [started.stdout.readline() for _ in range(2)]
            assert lines[1].startswith("[1/3]")
            (os.killpg if number == signal.SIGINT else os.kill)(started.pid, number)
            output, errors = started.communicate(timeout=60)
        if number == signal.SIGINT:
            assert started.returncode == 130, errors
            assert "the same command goes on" in output
        assert gone(started.pid), "a process is left"
        done = len(list((tmp_path / "quick" / "runs").glob("*.json")))
        assert 1 <= done < 3
        again = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
        assert f"3 runs, {3 - done} of them to be done" in again.stdout

    def test_papers(self, capsys):
        assert main(["papers"]) == 0
        printed = capsys.readouterr().out
        assert all(claim.id in printed for name in NAMES for claim in paper(name).claims)

    def test_a_report_of_what_is_there(self, tmp_path, capsys):
        assert main(["reproduce", "lab2", "--claim", "lab2-neuron-5", "--no-runs", "--out", str(tmp_path)]) == 0
        assert "lab2-neuron-5: not run: not done" in capsys.readouterr().out
        assert "not run" in (tmp_path / "report.html").read_text()

    def test_unknown_claim(self, capsys, tmp_path):
        assert main(["reproduce", "kth", "--claim", "none", "--out", str(tmp_path)]) == 2
        assert "--claim none: no such claim" in capsys.readouterr().err
