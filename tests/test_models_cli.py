"""`python -m models`, as its users meet it: what it writes, how it is stopped and continued, and what it refuses."""

import csv
import importlib.util
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from test_models_capture import compiled_code  # noqa: F401 (a fixture)

import models
from models.cli import main
from models.files import load_arrays

ROOT = Path(models.__file__).parent.parent
SMALL = ["--sizes", "784,12,10", "--examples", "600", "--validation", "200", "--batch-size", "50"]
QUICK = [*SMALL, "--no-figures"]


def train(folder: Path, *options: object) -> int:
    return main(["train", "--out", str(folder), *QUICK, *map(str, options)])


def weights(folder: Path) -> dict[str, bytes]:
    arrays = safetensors.numpy.load_file(folder / "weights.safetensors")
    return {name: array.tobytes() for name, array in arrays.items()}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "models", *map(str, arguments)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run of four epochs, with figures. Tests read it only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", "--out", str(folder), *SMALL, "--epochs", "4"]) == 0
    return folder


class TestWhatARunLeaves:
    def test_the_files(self, finished):
        assert list(files(finished)) == [
            *("checkpoint.safetensors", "confusion_matrix.png", "history.csv", "learning_curves.png"),
            *("misclassified.png", "results.json", "settings.json", "weights.safetensors"),
        ]
        for figure in finished.glob("*.png"):
            assert figure.read_bytes().startswith(b"\x89PNG")

    def test_settings_and_results(self, finished):
        settings = json.loads((finished / "settings.json").read_text())
        assert settings["sizes"] == [784, 12, 10]
        assert settings["epochs"] == 4
        results = json.loads((finished / "results.json").read_text())
        counts = np.array(results["confusion"])
        assert counts.sum(axis=1).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert results["test"]["accuracy"] == pytest.approx(np.trace(counts) / 10_000)
        assert results["test"]["accuracy"] > 0.5
        assert results["parameters"] == 784 * 12 + 12 + 12 * 10 + 10
        assert results["seed"] == 0
        backend = "numpy" if importlib.util.find_spec("numba") is None else "numba"
        assert (settings["backend"], results["backend"], results["fallback"]) == (backend, backend, None)
        assert results["versions"].keys() == {"python", "numpy", "tinygrad_scratch"} | ({backend} - {"numpy"})
        assert not results["interrupted"]

    def test_history(self, finished):
        with open(finished / "history.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
        assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
        assert all(float(value) >= 0 for row in rows for value in row.values())

    def test_evaluate_gives_the_same_accuracy(self, finished, capsys):
        results = json.loads((finished / "results.json").read_text())
        assert main(["evaluate", str(finished)]) == 0
        test = results["test"]
        assert capsys.readouterr().out == f"test loss {test['loss']:.4f}, accuracy {100 * test['accuracy']:.2f} %\n"

    def test_the_same_seed_gives_the_same_bits(self, finished, tmp_path):
        assert train(tmp_path / "again", "--epochs", 4) == 0
        assert weights(tmp_path / "again") == weights(finished)
        assert train(tmp_path / "other", "--epochs", 4, "--seed", 1) == 0
        assert weights(tmp_path / "other") != weights(finished)

    @pytest.mark.parametrize(
        ("option", "backend"),
        [(["--eager"], "eager"), (["--backend", "eager"], "eager"), (["--backend", "numpy"], "numpy")],
    )
    def test_what_computes_the_steps_makes_no_difference(self, finished, tmp_path, option, backend):
        assert train(tmp_path / "run", "--epochs", 4, *option) == 0
        results, others = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "run", finished))
        assert (results["backend"], "numba" in results["versions"]) == (backend, False)
        assert json.loads((tmp_path / "run" / "settings.json").read_text())["backend"] == backend
        assert results["test"]["loss"] == pytest.approx(others["test"]["loss"], rel=1e-3)
        assert results["test"]["accuracy"] == pytest.approx(others["test"]["accuracy"], abs=1e-3)

    def test_a_terminal_is_not_needed_and_matplotlib_neither(self, tmp_path):
        program = (
            "import sys; from models.cli import main; code = main(sys.argv[1:])\n"
            "sys.exit(code or any(name.startswith('matplotlib') for name in sys.modules))"
        )
        arguments = ["train", "--out", str(tmp_path / "run"), *QUICK, "--epochs", "2"]
        ran = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")
        lines = ran.stdout.splitlines()
        assert lines[0].startswith("784-12-10, relu, cross entropy; 600 training images; into ")
        assert [line.split(":")[0] for line in lines[1:3]] == ["epoch 1/2", "epoch 2/2"]
        assert lines[3].startswith("test loss ")
        assert len(lines) == 4

    def test_without_a_name_the_folder_is_called_by_the_time(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert main(["train", *QUICK, "--epochs", "1"]) == 0
        assert len(list(tmp_path.glob("runs/*-*/weights.safetensors"))) == 1

    def test_the_bar_on_a_terminal(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert train(tmp_path / "run", "--epochs", 1, "--batch-size", 1, "--examples", 5000) == 0
        shown = capsys.readouterr().err
        for part in ("epoch 1/1", "examples/s", "loss ", "accuracy "):
            assert part in shown


class TestResume:
    def test_two_and_two_epochs_are_four(self, finished, tmp_path):
        assert train(tmp_path / "run", "--epochs", 2) == 0
        assert weights(tmp_path / "run") != weights(finished)
        assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "4", "--no-figures"]) == 0
        assert weights(tmp_path / "run") == weights(finished)
        kind = "checkpoint of a tinygrad_scratch run, version 1"
        (arrays, state), (others, other) = (
            load_arrays(folder / "checkpoint.safetensors", kind) for folder in (tmp_path / "run", finished)
        )
        assert all(array.tobytes() == others[name].tobytes() for name, array in arrays.items())
        assert any(name.endswith("momentum_buffer") for name in arrays)
        assert state["order"] == other["order"]
        assert json.loads((tmp_path / "run" / "settings.json").read_text())["epochs"] == 4

    def test_another_back_end_may_take_over(self, finished, tmp_path):
        assert train(tmp_path / "run", "--epochs", 2, "--backend", "numpy") == 0
        arguments = ["train", "--resume", str(tmp_path / "run"), "--no-figures"]
        assert main([*arguments, "--epochs", "3"]) == 0
        assert json.loads((tmp_path / "run" / "settings.json").read_text())["backend"] == "numpy"
        assert main([*arguments, "--epochs", "4", "--eager"]) == 0
        results, others = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "run", finished))
        assert results["backend"] == "eager"
        assert results["test"]["loss"] == pytest.approx(others["test"]["loss"], rel=1e-3)

    def test_a_finished_run_is_only_written_again(self, finished, tmp_path):
        assert train(tmp_path / "run", "--epochs", 4) == 0
        (tmp_path / "run" / "weights.safetensors").unlink()
        assert main(["train", "--resume", str(tmp_path / "run"), "--no-figures"]) == 0
        assert weights(tmp_path / "run") == weights(finished)

    def test_ctrl_c_keeps_what_was_learned(self, tmp_path):
        folder = tmp_path / "run"
        process = subprocess.Popen(
            command("train", "--out", folder, *QUICK, "--epochs", 100_000, "--batch-size", 7),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        assert process.stdout.readline().startswith("epoch 1/100000: ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "test loss" in out
        assert "Traceback" not in err
        assert f"continue with: python -m models train --resume {folder}" in err
        results = json.loads((folder / "results.json").read_text())
        assert results["interrupted"]
        assert main(["evaluate", str(folder)]) == 0
        epochs = ["--epochs", results["epochs"] + 1]
        straight = ["--out", tmp_path / "straight", *QUICK, "--batch-size", 7]
        for options in (["--resume", folder, "--no-figures"], straight):
            subprocess.run(command("train", *options, *epochs), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        assert weights(folder) == weights(tmp_path / "straight")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--lr", "0.2"], "--resume keeps the settings of the run: leave out --lr"),
            (["--nesterov", "--batch-size", "5"], "leave out --batch-size, --nesterov"),
            (["--out", "elsewhere"], "leave out --out and --force"),
            (["--force"], "leave out --out and --force"),
            (["--epochs", "3"], "--epochs 3: the run in .* has already done 4"),
            (["--epochs", "0"], "epochs 0: must be at least 1"),
        ],
    )
    def test_what_cannot_be_changed(self, finished, capsys, options, message):
        before = files(finished)
        _refused(["train", "--resume", str(finished), *options], message, capsys)
        assert files(finished) == before


def _refused(arguments, message, capsys) -> None:
    """`main(arguments)` ends with code 2 and one line on stderr that matches."""
    try:
        code = main(list(map(str, arguments)))
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(message, err), err


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--sizes", "784,ten"], "argument --sizes: '784,ten': must be whole numbers with commas"),
            (["--sizes", "784"], "sizes 784: must be two or more"),
            (["--sizes", "784,-5,10"], "sizes 784,-5,10: must be two or more whole numbers of at least 1"),
            (["--sizes", "3072,10"], "sizes 3072,10: must be 784 first"),
            (["--activation", "step"], "argument --activation: invalid choice: 'step'"),
            (["--loss", "hinge"], "argument --loss: invalid choice: 'hinge'"),
            (["--backend", "gpu"], "argument --backend: invalid choice: 'gpu'"),
            (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
            (["--lr", "nan"], "lr nan: must be greater than 0"),
            (["--momentum", "1"], "momentum 1.0: must be at least 0 and less than 1"),
            (["--batch-size", "0"], "batch size 0: must be from 1 to 55000, the number of training examples"),
            (["--batch-size", "70000"], "batch size 70000: must be from 1 to 55000"),
            (["--validation", "60000"], "validation 60000: must be from 0 to 59999"),
            (["--depth", "3"], "unrecognized arguments: --depth 3"),
            (["--epoch", "3"], "unrecognized arguments: --epoch 3"),
        ],
    )
    def test_bad_options_make_no_folder(self, tmp_path, capsys, options, message):
        _refused(["train", "--out", tmp_path / "run", *options], message, capsys)
        assert not (tmp_path / "run").exists()

    def test_no_command(self, capsys):
        _refused([], "the following arguments are required", capsys)

    def test_a_folder_that_holds_a_run(self, tmp_path, capsys):
        folder = tmp_path / "run"
        assert train(folder, "--epochs", 1) == 0
        (folder / "notes.txt").write_text("mine")
        before = files(folder)
        _refused(["train", "--out", folder, *QUICK], "holds a run .*--resume, or replace it with --force", capsys)
        _refused(["train", "--out", folder, "--force", "--lr", "-1"], "lr -1.0", capsys)
        assert files(folder) == before
        assert train(folder, "--epochs", 1, "--seed", 5, "--force") == 0
        after = files(folder)
        assert after["weights.safetensors"] != before["weights.safetensors"]
        assert after["notes.txt"] == b"mine"

    def test_a_file_where_the_folder_should_be(self, tmp_path, capsys):
        (tmp_path / "run").write_text("")
        _refused(["train", "--out", tmp_path / "run", *QUICK], "run: (File exists|Not a directory)", capsys)

    def test_evaluating_what_is_no_run(self, tmp_path, capsys):
        _refused(["evaluate", tmp_path], "holds no run", capsys)
        _refused(["evaluate", tmp_path / "absent"], "holds no run", capsys)
        _refused(["train", "--resume", tmp_path], "checkpoint.safetensors: no such file", capsys)

    @pytest.mark.parametrize("spoil", ["cut", "changed", "foreign", "pickle", "empty"])
    def test_spoiled_files(self, finished, tmp_path, capsys, spoil):
        for name in ("settings.json", "weights.safetensors", "checkpoint.safetensors"):
            content = (finished / name).read_bytes()
            flipped = bytearray(content)
            flipped[-100] ^= 8
            foreign = safetensors.numpy.save({"x": np.ones(3)})
            (tmp_path / name).write_bytes(
                {
                    "cut": content[: len(content) // 2],
                    "changed": bytes(flipped),
                    "foreign": foreign,
                    "pickle": pickle.dumps(print),
                    "empty": b"",
                }[spoil]
            )
        _refused(["train", "--resume", tmp_path], "checkpoint.safetensors: ", capsys)
        _refused(["evaluate", tmp_path], "settings.json: ", capsys)
        (tmp_path / "settings.json").write_bytes((finished / "settings.json").read_bytes())
        _refused(["evaluate", tmp_path], "weights.safetensors: ", capsys)

    def test_settings_of_another_network(self, finished, tmp_path, capsys):
        settings = json.loads((finished / "settings.json").read_text())
        (tmp_path / "settings.json").write_text(json.dumps(settings | {"sizes": [784, 13, 10]}))
        (tmp_path / "weights.safetensors").write_bytes((finished / "weights.safetensors").read_bytes())
        _refused(["evaluate", tmp_path], "0.bias is float32 .12,., but the network has float32 .13,.", capsys)

    def test_full_disk_during_training(self, finished, tmp_path):
        """A file may grow to half a checkpoint only: a real write fails half-way, and the run is not lost."""
        folder = tmp_path / "run"
        assert train(folder, "--epochs", 2) == 0
        before = files(folder)
        limited = f'ulimit -f {len(before["checkpoint.safetensors"]) // 2048}; exec "$@"'
        ran = subprocess.run(
            ["bash", "-c", limited, "bash", *command("train", "--resume", folder, "--epochs", 4, "--no-figures")],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 2
        assert ran.stderr == f"error: {folder / 'checkpoint.safetensors'}: File too large\n"
        after = files(folder)
        assert after.keys() == before.keys()
        for name in ("checkpoint.safetensors", "weights.safetensors"):
            assert after[name] == before[name]
        assert main(["train", "--resume", str(folder), "--epochs", "4", "--no-figures"]) == 0
        assert weights(folder) == weights(finished)

    def test_no_place_for_compiled_code(self, finished, tmp_path, monkeypatch):
        """It is compiled for this process alone, and is the same."""
        folder = tmp_path / "run"
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TINYGRAD_SCRATCH_CACHE", str(tmp_path / "file" / "cache"))
        assert train(folder, "--epochs", 4) == 0
        assert weights(folder) == weights(finished)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_may_not_be_written(self, tmp_path, capsys):
        tmp_path.chmod(0o500)
        _refused(["train", "--out", tmp_path / "run", *QUICK], "Permission denied", capsys)
