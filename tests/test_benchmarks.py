"""Every benchmark runs, its results have the promised structure, and all competitors compute the same. No time is
judged."""

import json

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks import (
    capture,
    goals,
    graphs,
    imports,
    jacobians,
    layers,
    measure,
    ops,
    optimizers,
    papers,
    steps,
    training,
)
from benchmarks.hand_derived import NETWORKS
from benchmarks.peers import PEERS, YARDSTICK
from benchmarks.worker import Loaded, Worker, problem
from tinygrad_scratch.registry import OPS


def written(folder, name):
    """The results file, and nothing half written beside it."""
    assert not list(folder.glob("tmp*"))
    results = json.loads((folder / name).read_text())
    assert set(results) >= {"benchmark", "date", "settings", "machine", "versions"}
    assert results["machine"]["cores"] >= 1
    assert results["versions"]["numpy"] == np.__version__
    return results


# ---- steps -----------------------------------------------------------------------------------------------------------


def test_steps(tmp_path, capsys):
    shapes, peers = ["kth-online", "ecse4850"], ["preallocated", "products-alone", "ours-eager"]
    steps.main(["--quick", "--shapes", *shapes, "--peers", *peers, "--out", str(tmp_path)])
    results = written(tmp_path, "steps.json")
    assert list(results["shapes"]) == shapes
    for name in shapes:
        figures = results["shapes"][name]["peers"]
        assert list(figures) == [YARDSTICK, *peers]
        for peer in figures:
            assert figures[peer]["note"] == ""
            assert len(figures[peer]["seconds"]) == 2
            assert figures[peer]["ratio"] > 0
            assert figures[peer]["agrees"]
        assert figures["ours-eager"]["disagreement"] <= steps.TOLERANCE
        assert figures["products-alone"]["disagreement"] is None
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")
    assert "784-100-100-10 batch 50" in capsys.readouterr().out


# They take seconds to compile: left to the benchmark itself, which compares them too.
COMPILED = ("torch-compile", "ours-compiled", "ours-auto")


@pytest.mark.parametrize("peer", [name for name, peer in PEERS.items() if peer.trains and name not in COMPILED])
@pytest.mark.parametrize("name", ["jhu", "kth-online", "ncsu", "ecse4850"])
def test_peers_train_what_hand_derived_numpy_trains(peer, name):
    network = NETWORKS[name]
    parameters, batches = problem(network, 0, np.float32)
    try:
        trained = PEERS[peer](network, parameters, batches[: steps.CHECK_STEPS])
    except ImportError as error:
        if peer.startswith("ours"):
            raise
        pytest.skip(str(error))
    trained.reset()
    losses = [trained.value(trained.step(*batch)) for batch in trained.batches]
    trained.wait()
    reference = steps.reference_run(network, 0)
    assert steps.disagreement(Loaded(0.0, losses, trained.weights()), reference) <= steps.TOLERANCE
    trained.reset()
    assert trained.value(trained.run(1)) == pytest.approx(losses[0], rel=1e-6)


def test_a_peer_that_trains_something_else_is_marked():
    network = NETWORKS["kth-online"]
    losses, before, after = reference = steps.reference_run(network, 0)
    slower = [start + 0.9 * (end - start) for start, end in zip(before, after, strict=True)]
    found = steps.Measured([1.0], [0.0], disagreement=steps.disagreement(Loaded(0.0, losses, slower), reference))
    assert not found.agrees
    shape = {
        "label": network.label,
        "peers": {YARDSTICK: steps.Measured([1.0]).report(found), "x": found.report(found)},
    }
    results = {"shapes": {"kth-online": shape}, "machine": {"cores": 2}}
    assert "1.00 !" in steps.show(results, [YARDSTICK, "x"])


def test_a_peer_that_is_missing_is_noted_not_faked(monkeypatch, tmp_path, capsys):
    class Absent(Worker):
        def load(self, *arguments):
            raise RuntimeError("not installed: No module named 'autograd'") if self.peer == "autograd" else None

        def __init__(self, peer):
            super().__init__(peer)
            self.peer = peer
            if peer != "autograd":
                self.load = super().load

    monkeypatch.setattr(steps, "Worker", Absent)
    steps.main(["--quick", "--shapes", "kth-online", "--peers", "autograd", "--out", str(tmp_path)])
    figures = written(tmp_path, "steps.json")["shapes"]["kth-online"]["peers"]["autograd"]
    assert figures == {"note": "not installed: No module named 'autograd'"}
    assert "autograd: not installed" in capsys.readouterr().out


def test_a_failing_worker_says_why():
    worker = Worker(YARDSTICK)
    try:
        with pytest.raises(RuntimeError, match="AttributeError"):
            worker.ask("fly")
        worker.process.kill()
        with pytest.raises(RuntimeError, match="died"):
            worker.ask("block", 1)
    finally:
        worker.close()


# ---- the others ------------------------------------------------------------------------------------------------------


def test_ops(tmp_path):
    ops.main(["--quick", "--out", str(tmp_path)])
    results = written(tmp_path, "ops.json")
    assert set(results["ops"]) == set(OPS)
    for name, figures in results["ops"].items():
        for size in ("small", "large"):
            assert figures[size]["numpy_us"] > 0
            assert figures[size]["forward"] > 0
            assert ("both" in figures[size]) == OPS[name].differentiable


def test_ops_rules_by_hand_are_what_backward_computes():
    rng = np.random.default_rng(0)
    for name, op in OPS.items():
        sample = ops.example(op, rng, larger=False)
        if any(sample.wanted):
            sample.both()
            grads = [t.grad.numpy() for t, wanted in zip(sample.tensors, sample.wanted, strict=True) if wanted]
            for grad, expected in zip(grads, sample.rules_by_hand(), strict=True):
                np.testing.assert_allclose(grad, expected, rtol=1e-6, err_msg=name)


def test_capture(tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "STARTS", ("ours-numpy",))
    monkeypatch.setattr(capture, "EPOCHS", ("ours-numpy", "hand-derived"))
    capture.main(["--quick", "--shapes", "kth-online", "--out", str(tmp_path)])
    found = written(tmp_path, "capture.json")
    memory = found["memory_kb"]["kth-online"]
    assert 0 < memory["ours-numpy"] < 1.3 * memory["preallocated"]
    assert found["start_ms"]["kth-online"]["ours-numpy"] > 0
    assert set(found["epoch_s"]) == {"ours-numpy", "hand-derived"}
    assert all(seconds > 0 for seconds in found["epoch_s"].values())


def test_jacobians(tmp_path):
    jacobians.main(["--quick", "--out", str(tmp_path)])
    found = written(tmp_path, "jacobians.json")["jacobians"]
    assert set(found) > set(jacobians.functions())
    assert all(kind["ms"] > 0 < kind["loop"] for kinds in found.values() for kind in kinds.values())


def test_graphs(tmp_path):
    graphs.main(["--quick", "--out", str(tmp_path)])
    for kind, found in written(tmp_path, "graphs.json")["graphs"].items():
        assert kind in graphs.KINDS
        for run in found["sizes"].values():
            assert run["kept_in_cycles"] == 0
            assert run["kept_objects"] < 200


def test_layers(tmp_path, capsys):
    peers = ["torch-eager", "ours-eager", "ours-numpy"]
    layers.main(["--quick", "--cases", "conv5x5", "lenet5", "--peers", *peers, "--out", str(tmp_path)])
    for case in written(tmp_path, "layers.json")["shapes"].values():
        assert list(case["peers"]) == peers
        for peer, found in case["peers"].items():
            if peer != "torch-eager" or "not installed" not in found["note"]:
                assert found["agrees"]
                assert len(found["seconds"]) == 2
                assert found["memory"] is None or found["memory"] >= 0
        assert case["peers"]["ours-eager"]["memory"] > 0
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert "LeNet-5, a training step" in capsys.readouterr().out


def test_optimizers(tmp_path, capsys):
    optimizers.main(["--quick", "--optimizers", "Adam", "RMSprop", "--out", str(tmp_path)])
    for found in written(tmp_path, "optimizers.json")["optimizers"].values():
        assert {"eager", "captured"} <= set(found)
        for figures in found.values():
            assert figures["agrees"]
            assert len(figures["seconds"]) == 2
    assert "microseconds" in capsys.readouterr().out


def test_imports(tmp_path, capsys):
    imports.main(["--quick", "--no-wheel", "--out", str(tmp_path)])
    found = written(tmp_path, "import.json")["imports"]
    assert found["numpy"]["over_numpy_s"] == 0
    assert found[imports.OURS]["best_s"] > 0
    assert "over NumPy's own" in capsys.readouterr().out


def test_goals(tmp_path, capsys):
    pytest.importorskip("numba", reason="numba, of the extra 'jit', is not installed")
    goals.main(["--quick", "--cases", "lenet5", "--out", str(tmp_path)])
    runs = written(tmp_path, "goals.json")["runs"]["lenet5"]
    runs = {peer: run for peer, run in runs.items() if "note" not in run}
    for run in runs.values():
        assert run["epochs"] == 1
        assert run["accuracies"][0] == pytest.approx(runs["ours"]["accuracies"][0], abs=0.02)
        assert run["accuracies"][0] > 0.3
        assert 0 < run["start"] < run["seconds"]
    assert "LeNet-5 on MNIST" in capsys.readouterr().out


def test_training(tmp_path):
    training.main(["--quick", "--out", str(tmp_path)])
    results = written(tmp_path, "training.json")
    runs = {name: run for name, run in results["runs"].items() if "note" not in run}
    assert {"hand-derived", "ours"} <= set(runs)
    for run in runs.values():
        assert run["first_epoch_loss"] == pytest.approx(runs["hand-derived"]["first_epoch_loss"], rel=1e-3)
        assert run["test_accuracy"] == pytest.approx(runs["hand-derived"]["test_accuracy"], abs=0.02)
    assert results["whole command"]["test_accuracy"] == pytest.approx(runs["ours"]["test_accuracy"], abs=1e-9)


def test_command_line(capsys):
    assert command_line.main([]) == 2
    assert command_line.main(["nothing"]) == 2
    assert command_line.main(["--help"]) == 0
    assert set(command_line.COMMANDS) == {
        "steps",
        "capture",
        "ops",
        "graphs",
        "layers",
        "optimizers",
        "papers",
        "import",
        "training",
        "goals",
        "precision",
        "coverage",
        "array_api",
        "jacobians",
    }
    with pytest.raises(SystemExit):
        steps.parse(["--rounds", "0"])


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    measure.write_json(path, {"figure": 1})
    with pytest.raises(TypeError):
        measure.write_json(path, {"figure": object()})
    assert json.loads(path.read_text()) == {"figure": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_paired_ratio_of_equals_is_a_number():
    ratio, seconds = measure.paired_ratio(lambda: None, lambda: None, rounds=3, block=0.0001)
    assert ratio > 0
    assert seconds > 0


# ---- papers ----------------------------------------------------------------------------------------------------------


def test_papers(tmp_path, capsys):
    papers.main(["--quick", "--peers", "preallocated", "--out", str(tmp_path)])
    results = written(tmp_path, "papers.json")
    assert list(results["papers"]) == ["jhu", "ncsu", "lab2", "ecse4850", "kth"]
    for found in results["papers"].values():
        assert set(found["seconds"]) == {YARDSTICK, "preallocated"}
        assert min(found["seconds"].values()) > 0
    assert "ecse4850" in capsys.readouterr().out


def test_the_papers_steps_are_counted():
    counts = papers.count_steps("kth")
    online = [count for network, count in counts.items() if network.batch == 1 and not network.momentum]
    assert sum(online) == 60_000 * (4 * 35 + 3) + 100  # four rates, three first epochs of a sample, a sample online
