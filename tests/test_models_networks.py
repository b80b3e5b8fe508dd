"""Networks other than the MLP, what they start from, and the choices of a run: optimizers, schedules, augmentation."""

import csv
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from test_models import assert_same_run
from test_models_capture import CAPTURED, compiled_code  # noqa: F401 (a fixture)
from test_models_cli import _refused, files, weights

from models import networks, outputs, plots
from models.autoencoder import Autoencoder, layers_of
from models.checkpoint import load_checkpoint, save_checkpoint
from models.cli import main
from models.data import Mnist, augmentation, flatten, load_mnist
from models.data.sets import DATA_SETS
from models.files import RunError
from models.losses import LOSSES
from models.mlp import ACTIVATIONS, MLP
from models.networks import NETWORKS
from models.optimizers import OPTIMIZERS, SCHEDULES
from models.pretraining import pretrain, pretrain_layers
from models.settings import Settings
from models.training import Run, make_loader, measure, new_run, predict, prepare, train
from tinygrad_scratch import nn
from tinygrad_scratch.nn.watch import Look

SMALL = {"examples": 300, "validation": 100, "batch_size": 40, "epochs": 2, "backend": "numpy"}  # 8 steps an epoch
CODER = Settings.chosen(model="autoencoder", sizes=(784, 12, 5), activation="sigmoid", init="glorot", **SMALL)
WORDS = "--sizes 784,12,5 --activation sigmoid --examples 300 --validation 100 --batch-size 40 --backend numpy".split()
SIZES = st.lists(st.integers(1, 9), min_size=2, max_size=4)


@pytest.fixture(scope="module")
def mnist() -> Mnist:
    return load_mnist()


def trained(settings: Settings, mnist: Mnist) -> Run:
    run, examples = new_run(settings), prepare(settings, mnist)
    assert pretrain(run, examples[0], after=lambda run: None)
    assert train(run, *examples)
    return run


def stopped_and_resumed(settings: Settings, mnist: Mnist, path, after: int) -> Run:
    """Stopped after so many steps, saved, loaded and finished."""
    run, examples = new_run(settings), prepare(settings, mnist)
    assert pretrain(run, examples[0], after=lambda run: None)
    assert not train(run, *examples, stop=lambda: 8 * len(run.history) + run.partial.steps >= after)
    save_checkpoint(path, run)
    run = load_checkpoint(path)
    assert train(run, *examples)
    return run


class TestAutoencoder:
    @given(SIZES, st.sampled_from(list(ACTIVATIONS)), st.integers(1, 4))
    def test_is_its_diagram(self, sizes, activation, n):
        model = Autoencoder(sizes, activation, rng=0)
        x = np.random.default_rng(1).random((n, sizes[0]), np.float32)
        codes = model.encoder(x)
        assert (codes.shape, model(x).shape) == ((n, sizes[-1]), x.shape)
        np.testing.assert_array_equal(model(x).data, model.decoder(codes).data)
        shapes = [part.weight.shape[::-1] for part in model.modules() if isinstance(part, nn.Linear)]
        there = list(pairwise(sizes))
        assert shapes == there + [(b, a) for a, b in reversed(there)]

    def test_its_encoder_has_the_names_of_an_mlps_first_layers(self):
        state = Autoencoder([8, 4, 2], rng=0).encoder.state_dict()
        assert list(state) == list(MLP([8, 4, 2, 3]).state_dict())[:4]

    def test_measured_by_its_loss_alone(self, mnist):
        run = trained(CODER, mnist)
        assert run.history[-1].train_accuracy is run.history[-1].validation_accuracy is None
        assert run.history[-1].validation_loss < run.history[0].validation_loss
        _, validation = prepare(CODER, mnist)
        x, z = validation.x.astype(float), predict(run.model, validation.x).astype(float)
        expected = -(x * np.log(1 / (1 + np.exp(-z))) + (1 - x) * np.log(1 / (1 + np.exp(z)))).sum(axis=1).mean()
        measured = measure(run.model, LOSSES["bce"], validation, classifies=False)
        assert measured == (pytest.approx(expected, rel=1e-5), None)
        assert measured.loss == run.history[-1].validation_loss

    @pytest.mark.parametrize("backend", ["eager", *CAPTURED])
    def test_resumed_in_mid_epoch(self, mnist, tmp_path, backend):
        loss, sizes = ("squared_error", (784, 6)) if backend == "numba" else ("bce", (784, 8, 5))
        settings = replace(CODER, loss=loss, sizes=sizes, examples=320, backend=backend)
        assert_same_run(stopped_and_resumed(settings, mnist, tmp_path / "run", 5), trained(settings, mnist))


class TestPretraining:
    settings = replace(CODER, pretrain=2)

    def test_each_layer_learns_to_give_back_what_it_is_fed(self, mnist):
        x = flatten(mnist.x_train[:600])
        for layers in (layers_of(MLP([784, 30, 20, 10], "sigmoid", init="glorot", rng=0)[:-1], rng=1),):
            losses = {}
            for epochs in (1, 20):
                found = losses[epochs] = []
                seed = np.random.SeedSequence(3)
                assert pretrain_layers(
                    layers, x, seed, epochs=epochs, batch_size=20, backend="numpy", after=found.append
                )
            assert len(losses[1]) == 2
            assert all(later < 0.8 * first for first, later in zip(losses[1], losses[20], strict=True))

    def test_it_is_the_networks_own_layers_that_learn(self, mnist):
        for model, decoder in [(m := Autoencoder([784, 9, 4], rng=0), m.decoder), (MLP([784, 9, 4, 10], rng=0), None)]:
            before = model.state_dict()
            layers = layers_of(model.encoder if decoder else model[:-1], decoder, rng=1)
            x = flatten(mnist.x_train[:100])
            pretrain_layers(layers, x, np.random.SeedSequence(0), epochs=1, batch_size=50, backend="eager")
            changed = [name for name, array in model.state_dict().items() if not np.array_equal(array, before[name])]
            assert changed == (list(before) if decoder else list(before)[:4])

    def test_a_start_that_is_better_than_chance(self, mnist):
        one, other = (replace(CODER, epochs=1, examples=1000, pretrain=n) for n in (0, 5))
        assert trained(other, mnist).history[0].train_loss < trained(one, mnist).history[0].train_loss

    @pytest.mark.parametrize("backend", ["eager", "numpy"])
    @pytest.mark.parametrize("model", ["autoencoder", "mlp"])
    def test_stopped_again_and_again_it_goes_on_bit_for_bit(self, mnist, tmp_path, backend, model):
        settings = replace(self.settings, backend=backend)
        if model == "mlp":
            settings = replace(settings, model="mlp", sizes=(784, 9, 6, 10), loss="cross_entropy")
        examples = prepare(settings, mnist)
        run = new_run(settings)
        for limit in (3, 10, 16, 22, 50):  # batches, of which each layer has 16
            before, asked = run.model.state_dict(), iter(range(1000))
            done = pretrain(run, examples[0], stop=lambda: next(asked) >= limit, after=lambda run: None)  # noqa: B023
            if not run.pretrained:
                assert all(np.array_equal(before[name], array) for name, array in run.model.state_dict().items())
            save_checkpoint(tmp_path / "run", run)
            run = load_checkpoint(tmp_path / "run")
        assert done
        assert len(run.pretrained) == 2
        assert train(run, *examples)
        straight = trained(settings, mnist)
        assert_same_run(run, straight)
        assert run.pretrained == straight.pretrained


class TestChoices:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("backend", ["eager", "numpy"])
    def test_every_optimizer_resumes_bit_for_bit(self, mnist, tmp_path, optimizer, backend):
        settings = replace(Settings.chosen(sizes=(784, 8, 10), optimizer=optimizer, **SMALL), backend=backend)
        settings = replace(settings, weight_decay=0.01, schedule="exponential")
        run = trained(settings, mnist)
        assert run.history[1].train_loss < run.history[0].train_loss
        for after in (1, 5, 8, 11):
            assert_same_run(stopped_and_resumed(settings, mnist, tmp_path / "run", after), run)

    @pytest.mark.parametrize("backend", CAPTURED)
    def test_captured_is_eager(self, mnist, backend):
        settings = Settings.chosen(sizes=(784, 10), optimizer="adam", schedule="root", **{**SMALL, "examples": 320})
        eager, run = (trained(replace(settings, backend=name), mnist) for name in ("eager", backend))
        for one, other in zip(run.history, eager.history, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)

    @pytest.mark.parametrize(
        ("schedule", "rates"),
        [
            ("constant", [1, 1, 1, 1, 1]),
            ("step", [1, 1, 0.5, 0.5, 0.25]),
            ("exponential", [1, 0.5, 0.25, 0.125, 0.0625]),
            ("cosine", [1, 0.853553, 0.5, 0.146447, 0]),
            ("root", [1, 0.707107, 0.577350, 0.5, 0.447214]),
        ],
    )
    def test_rate_of_each_epoch(self, mnist, tmp_path, schedule, rates):
        assert schedule in SCHEDULES
        changes = {"examples": 20, "batch_size": 20, "epochs": 4, "validation": 0, "backend": "eager"}
        settings = Settings(sizes=(784, 10), lr=0.1, schedule=schedule, step_size=2, **changes)
        run, found = new_run(settings), []
        examples = prepare(settings, mnist)
        found.append(run.optimizer.param_groups[0]["lr"])
        while len(run.history) < 4:
            train(run, *examples, stop=lambda: True)
            save_checkpoint(tmp_path / "run", run)
            run = load_checkpoint(tmp_path / "run")
            found.append(run.optimizer.param_groups[0]["lr"])
        np.testing.assert_allclose(found, np.multiply(rates, 0.1), rtol=1e-5, atol=1e-12)

    def test_defaults_follow_the_choice(self):
        assert Settings.chosen() == Settings()
        assert (Settings.chosen(optimizer="adam").lr, Settings.chosen(optimizer="adam").momentum) == (0.001, 0)
        assert Settings.chosen(optimizer="adamw", lr=0.5).lr == 0.5
        coder = Settings.chosen(model="autoencoder")
        assert (coder.optimizer, coder.loss, coder.sizes) == ("adam", "bce", (784, 256, 64))
        assert Settings.chosen(model="autoencoder", optimizer="sgd").momentum == 0.9

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"optimizer": "newton"}, "optimizer 'newton': must be one of sgd, adam"),
            ({"schedule": "never"}, "schedule 'never': must be one of constant, step"),
            ({"optimizer": "adam", "momentum": 0.5}, "momentum 0.5: adam has none: leave it out"),
            ({"optimizer": "rmsprop", "nesterov": True}, "nesterov True: rmsprop has none"),
            ({"gamma": 0.0}, "gamma 0.0: must be greater than 0"),
            ({"step_size": 0}, "step size 0: must be at least 1"),
            ({"shift": 28}, "shift 28: must be from 0 to 27"),
            ({"pretrain": -1}, "pretrain -1: must be at least 0"),
            ({"model": "autoencoder", "loss": "cross_entropy"}, "loss cross_entropy: must be bce or squared_error for"),
            ({"model": "autoencoder", "sizes": (100, 5)}, "sizes 100,5: must be 784 first"),
            ({"model": "autoencoder", "start": "folder"}, "start: autoencoder does not start from an encoder"),
        ],
    )
    def test_senseless_ones_are_refused(self, given, message):
        with pytest.raises(RunError, match=message):
            Settings.chosen(**given)


class Dropping(nn.Module):
    """A network that draws while it trains."""

    def __init__(self, rng):
        self.hidden, self.out = nn.Linear(784, 20, rng=rng), nn.Linear(20, 10, rng=rng)
        self.drop = nn.Dropout(0.5, rng=rng)

    def forward(self, x):
        return self.out(self.drop(np.tanh(self.hidden(x))))


class Convolving(nn.Module):
    """A network that takes images, and keeps running statistics."""

    def __init__(self, rng):
        self.convolve, self.normalise = nn.Conv2d(1, 3, 5, stride=3, rng=rng), nn.BatchNorm2d(3)
        self.out = nn.Linear(3 * 8 * 8, 10, rng=rng)

    def forward(self, x):
        return self.out(np.tanh(self.normalise(self.convolve(x))).reshape(len(x), -1))


@pytest.mark.parametrize("backend", ["eager", "numpy"])
@pytest.mark.parametrize("shift", [0, 1])
def test_images_and_running_statistics(mnist, tmp_path, monkeypatch, backend, shift):
    row = networks.Network(lambda settings, rng: Convolving(rng), lambda settings: "convolving", flat=False)
    monkeypatch.setitem(NETWORKS, "mlp", row)
    settings = Settings.chosen(shift=shift, watch=5, **{**SMALL, "examples": 320, "backend": backend})
    run = trained(settings, mnist)
    assert run.history[1].train_loss < run.history[0].train_loss
    for after in (1, 5, 8):
        resumed = stopped_and_resumed(settings, mnist, tmp_path / "run", after)
        assert_same_run(resumed, run)
        assert resumed.watch.rows == run.watch.rows
    _, validation = prepare(settings, mnist)
    assert measure(run.model, LOSSES["cross_entropy"], validation).loss == run.history[-1].validation_loss


class TestAugmentationAndDropout:
    @pytest.mark.parametrize("backend", ["eager", "numpy"])
    @pytest.mark.parametrize("model", ["mlp", "autoencoder", "dropping"])
    def test_resumed_in_mid_epoch(self, mnist, tmp_path, monkeypatch, backend, model):
        row = networks.Network(lambda settings, rng: Dropping(rng), lambda settings: "dropping")
        monkeypatch.setitem(NETWORKS, "mlp", row if model == "dropping" else NETWORKS["mlp"])
        sizes = {"mlp": (784, 8, 10), "autoencoder": (784, 8)}.get(model, Settings.sizes)
        name = "autoencoder" if model == "autoencoder" else "mlp"
        settings = Settings.chosen(model=name, sizes=sizes, shift=2, flip=True, **{**SMALL, "backend": backend})
        run = trained(settings, mnist)
        for after in (1, 2, 7, 8, 9):
            assert_same_run(stopped_and_resumed(settings, mnist, tmp_path / "run", after), run)
        assert not np.array_equal(
            next(iter(run.model.parameters())).numpy(),
            next(iter(trained(replace(settings, shift=0), mnist).model.parameters())).numpy(),
        )

    def test_dropout_is_off_when_the_network_is_asked(self, mnist):
        model = Dropping(np.random.default_rng(0))
        x = flatten(mnist.x_test[:20])
        np.testing.assert_array_equal(predict(model, x), predict(model, x))
        assert model.drop.training
        assert not np.array_equal(model(x).data, model(x).data)

    def test_rows_of_pixels_are_moved_as_images(self, mnist):
        images = mnist.x_train[:5]
        [shift] = augmentation(3, False)
        made = shift(flatten(images), np.random.default_rng(0)).reshape(5, 28, 28)
        for image, before in zip(made, images / np.float32(255), strict=True):
            padded = np.pad(before, 3)
            parts = [padded[i : i + 28, j : j + 28] for i in range(7) for j in range(7)]
            assert any(np.array_equal(image, part) for part in parts)

    def test_an_autoencoders_target_is_what_it_was_fed(self, mnist):
        settings = replace(CODER, shift=2)
        x = next(iter(make_loader(new_run(settings), prepare(settings, mnist)[0])))
        assert isinstance(x, np.ndarray)


@pytest.fixture(scope="module")
def coder(tmp_path_factory):
    """The folder of an autoencoder's run of two epochs."""
    folder = tmp_path_factory.mktemp("coder") / "run"
    assert main(["train", "--model", "autoencoder", *WORDS, "--epochs", "2", "--out", str(folder)]) == 0
    return folder


class TestColouredImages:
    """CIFAR-10 is large and not shipped: here, random images of its shape take its place."""

    @pytest.fixture(autouse=True)
    def coloured(self, monkeypatch):
        rng = np.random.default_rng(0)
        images = [rng.integers(0, 256, (n, 3, 32, 32), np.uint8) for n in (200, 50)]
        data = Mnist(images[0], rng.integers(0, 10, 200), images[1], np.arange(50) % 10)
        monkeypatch.setitem(DATA_SETS, "cifar10", DATA_SETS["cifar10"]._replace(load=lambda: data, examples=200))
        return data

    @pytest.mark.parametrize("model", ["mlp", "autoencoder", "vgg"])
    def test_a_run(self, tmp_path, model):
        folder = tmp_path / "run"
        words = ["--data", "cifar10", "--model", model, "--validation", "20", "--epochs", "1", "--backend", "numpy"]
        assert main(["train", *words, "--shift", "2", "--flip", "--out", str(folder)]) == 0
        assert json.loads((folder / "settings.json").read_text())["sizes"][0] == 3072
        assert main(["evaluate", str(folder)]) == 0
        assert main(["train", "--resume", str(folder), "--epochs", "2", "--no-figures"]) == 0

    def test_networks_of_images_get_them_as_they_are(self, monkeypatch, coloured):
        row = networks.Network(lambda settings, rng: nn.Conv2d(3, 2, 3), lambda settings: "", flat=False)
        monkeypatch.setitem(NETWORKS, "mlp", row)
        settings = Settings.chosen(data="cifar10", examples=60, validation=30)
        training, validation = prepare(settings, coloured)
        assert (training.x.shape, validation.x.shape) == ((60, 3, 32, 32), (30, 3, 32, 32))
        with pytest.raises(RunError, match="sizes: mlp has a shape of its own: leave it out"):
            Settings.chosen(data="cifar10", sizes=(3072, 5, 10), validation=30)

    def test_senseless_ones_are_refused(self):
        with pytest.raises(RunError, match="sizes 784,10: must be 3072 first, CIFAR-10's pixels"):
            Settings.chosen(data="cifar10", sizes=(784, 10), validation=20)
        with pytest.raises(RunError, match="data cifar10: must be mnist for lenet5"):
            Settings.chosen(data="cifar10", model="lenet5", validation=20)
        with pytest.raises(RunError, match="validation 200: must be from 0 to 199"):
            Settings.chosen(data="cifar10", validation=200)


def test_data_that_are_missing_are_said_first(tmp_path, monkeypatch, capsys):
    for variable in ("TINYGRAD_SCRATCH_DATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    _refused(
        ["train", "--data", "cifar10", "--out", tmp_path / "run"], "CIFAR-10 is not in .*TINYGRAD_SCRATCH_DATA", capsys
    )
    assert not (tmp_path / "run").exists()


class TestCommand:
    def test_what_an_autoencoder_leaves(self, coder, capsys):
        names = {"checkpoint.safetensors", "history.csv", "learning_curves.png", "reconstructions.png", "results.json"}
        assert set(files(coder)) == names | {"settings.json", "weights.safetensors"}
        results = json.loads((coder / "results.json").read_text())
        assert results["confusion"] is results["test"]["accuracy"] is None
        assert "accuracy,seconds" in (coder / "history.csv").read_text().splitlines()[0]
        assert main(["evaluate", str(coder)]) == 0
        assert capsys.readouterr().out == f"test loss {results['test']['loss']:.4f}\n"

    def test_one_and_one_epoch_are_two(self, coder, tmp_path):
        folder = tmp_path / "run"
        words = ["train", "--model", "autoencoder", *WORDS, "--no-figures"]
        assert main([*words, "--epochs", "1", "--out", str(folder)]) == 0
        assert main(["train", "--resume", str(folder), "--epochs", "2", "--no-figures"]) == 0
        assert weights(folder) == weights(coder)

    def test_a_classifier_starts_from_its_encoder(self, coder, tmp_path, capsys):
        settings = replace(CODER, model="mlp", sizes=(784, 12, 5, 10), loss="cross_entropy", start=str(coder))
        run = new_run(settings)
        outputs.start_from(coder, run)
        encoder = safetensors.numpy.load_file(coder / "weights.safetensors")
        for name, array in run.model.state_dict().items():
            if name in ("4.weight", "4.bias"):
                assert f"encoder.{name}" not in encoder
            else:
                np.testing.assert_array_equal(array, encoder[f"encoder.{name}"])
        words = [*WORDS, "--epochs", "1", "--no-figures", "--start", str(coder), "--out", str(tmp_path / "run")]
        assert main(["train", *words, "--sizes", "784,12,5,10", "--pretrain", "1"]) == 0
        assert capsys.readouterr().out.count("pre-trained: loss") == 2
        fits = r"does not fit 784-.*: give --sizes 784,12,5,10 and --activation sigmoid"
        for wrong in (["--sizes", "784,11,5,10"], ["--sizes", "784,12,10"], ["--activation", "tanh"]):
            sizes = [] if "--sizes" in wrong else ["--sizes", "784,12,5,10"]
            _refused(["train", *words[:-1], tmp_path / "no", *sizes, *wrong], fits, capsys)
        start = ["--start", tmp_path / "run", "--out", tmp_path / "no"]
        _refused(["train", *start], "holds a run of mlp, not of an autoencoder", capsys)
        _refused(["train", "--start", tmp_path, "--out", tmp_path / "no"], "holds no run", capsys)
        assert not (tmp_path / "no").exists()

    def test_a_cosine_is_not_prolonged(self, tmp_path, capsys):
        words = [*WORDS, "--sizes", "784,5,10", "--epochs", "1", "--schedule", "cosine", "--no-figures"]
        assert main(["train", *words, "--out", str(tmp_path / "run")]) == 0
        _refused(["train", "--resume", tmp_path / "run", "--epochs", "2"], "--epochs: the cosine schedule was", capsys)


class TestWatch:
    @pytest.mark.parametrize("backend", ["eager", *CAPTURED])
    @pytest.mark.parametrize("shift", [0, 1])
    def test_it_changes_no_bit_and_resumes(self, mnist, tmp_path, backend, shift):
        settings = Settings(sizes=(784, 6, 10), shift=shift, **{**SMALL, "examples": 320, "backend": backend})
        plain, seen = trained(settings, mnist), trained(replace(settings, watch=3), mnist)
        assert_same_run(seen, plain)
        assert list(dict.fromkeys(row.step for row in seen.watch.rows)) == [0, 3, 6, 9, 12, 15]
        assert all(row.update > 0 for row in seen.watch.rows if row.weight)
        if backend != "numba" or shift:  # which may do more steps than asked for before it stops
            resumed = stopped_and_resumed(replace(settings, watch=3), mnist, tmp_path / "run", 5)
            assert_same_run(resumed, plain)
            assert resumed.watch.rows == seen.watch.rows

    def test_what_it_leaves(self, tmp_path):
        folder = tmp_path / "run"
        words = [
            "--sizes",
            "784,6,10",
            "--examples",
            "320",
            "--validation",
            "50",
            "--batch-size",
            "40",
            "--epochs",
            "1",
        ]
        assert main(["train", *words, "--backend", "numpy", "--watch", "4", "--out", str(folder)]) == 0
        with open(folder / "watch.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [(row["step"], row["layer"], row["kind"]) for row in rows[:3]] == [
            ("0", "0", "Linear"),
            ("0", "1", "ReLU"),
            ("0", "2", "Linear"),
        ]
        assert len(rows) == 6
        assert rows[1]["weight"] == ""
        assert float(rows[0]["update"]) > 0
        assert (folder / "watch.png").read_bytes().startswith(b"\x89PNG")

    def test_a_figure_of_nothing_to_draw(self):
        rows = [Look(0, "0", "Flatten", 0.0, None, None, None, None, None)]
        assert plots.watched(rows, "title").startswith(b"\x89PNG")
