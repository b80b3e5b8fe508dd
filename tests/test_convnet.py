"""The convolutional networks of models: their shapes and sizes, and that they learn."""

import numpy as np
import pytest

from models.convnet import VGG, LeNet5
from models.data import load_mnist
from models.settings import Settings
from models.training import build_model, new_run, prepare, train
from tinygrad_scratch import nn


def test_lenet5_has_the_papers_layers():
    model = LeNet5(rng=0)
    shapes = {name: array.shape for name, array in model.state_dict().items()}
    assert list(shapes.values())[::2] == [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
    assert sum(p.size for p in model.parameters()) == 61_706
    maps = []
    x = np.zeros((2, 1, 28, 28), np.float32)
    for layer in model:
        x = layer(x)
        maps.append(x.shape[1:])
    assert maps[0] == (6, 28, 28)
    assert maps[2] == (6, 14, 14)
    assert maps[3] == (16, 10, 10)
    assert maps[5] == (16, 5, 5)
    assert maps[-1] == (10,)


def test_vgg_halves_the_image_with_each_width():
    model = VGG((4, 8), channels=1, size=12, classes=3, rng=0)
    assert model(np.zeros((2, 1, 12, 12), np.float32)).shape == (2, 3)
    assert model[-1].weight.shape == (3, 8 * 3 * 3)
    convolutions = [layer for layer in VGG((64,), rng=0) if isinstance(layer, nn.Conv2d)]
    assert np.std(convolutions[1].weight.numpy()) == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)
    with pytest.raises(ValueError, match="multiple of 8"):
        VGG(size=28)


@pytest.mark.parametrize("build", [LeNet5, VGG])
def test_the_seed_gives_the_weights(build):
    one, two, other = (build(rng=seed).state_dict() for seed in (0, 0, 1))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["0.weight"], other["0.weight"])


@pytest.mark.parametrize(("model", "lr"), [("lenet5", 0.04), ("vgg", 0.01)])  # at 0.04 rounding decides what vgg learns
def test_a_run_learns(model, lr):
    settings = Settings(model=model, lr=lr, examples=600, validation=100, batch_size=10, epochs=3, backend="numpy")
    run = new_run(settings)
    assert isinstance(run.model, type(build_model(settings)))
    train(run, *prepare(settings, load_mnist()))
    assert run.history[-1].validation_accuracy > 0.5
