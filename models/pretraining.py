"""Layer-wise pre-training (Bengio et al. 2007): before a run's first step, each hidden layer in turn learns to code what
the layers before it answer, so that the decoder's layer, or one of its own, can give it back.

Deep networks of sigmoids, whose gradients vanish on the way to the first layers, can start from there.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

import tinygrad_scratch as tg
from models.autoencoder import Autoencoder, Layer, layers_of
from models.data import Array
from models.files import RunError
from models.losses import LOSSES, distance
from models.training import Examples, Run, Stop, captured, predict
from tinygrad_scratch.data import DataLoader
from tinygrad_scratch.optim import Adam

LR = 1e-3
"""Of Adam, which suits layers of any width and the two losses alike."""


def pretrain(run: Run, training: Examples, *, stop: Stop = lambda: False, after: Callable[[Run], None]) -> bool:
    """Pre-train the layers of the run's network that are not yet, as its settings say; False if `stop()` was true.

    `after` is called when a layer's loss has entered `run.pretrained`. A layer in which it was stopped is as it was.
    """
    settings, model = run.settings, run.model
    if not settings.pretrain or run.history or run.partial.steps:
        return True
    rng, seed = np.random.SeedSequence(settings.seed).spawn(5)[3:]  # 0 to 2 are the streams of the training
    if isinstance(model, Autoencoder):
        layers = layers_of(model.encoder, model.decoder)
    else:
        layers = layers_of(model[:-1], rng=np.random.default_rng(rng))  # type: ignore[index]

    def entered(loss: float) -> None:
        run.pretrained.append(loss)
        after(run)

    return pretrain_layers(
        layers,
        training.x,
        seed,
        epochs=settings.pretrain,
        batch_size=settings.batch_size,
        backend=settings.backend,
        done=len(run.pretrained),
        stop=stop,
        after=entered,
    )


def pretrain_layers(
    layers: Sequence[Layer],
    x: Array,
    seed: np.random.SeedSequence,
    *,
    epochs: int,
    batch_size: int,
    backend: str = "auto",
    done: int = 0,
    stop: Stop = lambda: False,
    after: Callable[[float], None] = lambda loss: None,
) -> bool:
    """Teach each of the layers (`autoencoder.layers_of`) to give back what it is fed; False if `stop()` was true.

    x (N, inputs) in [0, 1]. The first layer's loss is the binary cross-entropy of the pixels, the others' the squared
    error of the codes, each the sum over the outputs. `done`: so many layers are left as they are. `after` is called
    with each layer's mean loss in its last epoch.
    """
    for number, (layer, stream) in enumerate(zip(layers, seed.spawn(len(layers)), strict=True)):
        if number >= done:
            loss = _learn(layer, x, stream, not number, epochs, batch_size, backend, stop)
            if loss is None:
                return False
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss of pre-training layer {number + 1} is not finite: the data or weights are not"
                )
            after(loss)
        x = predict(layer.there, x)
    return True


def _learn(
    layer: Layer,
    x: Array,
    seed: np.random.SeedSequence,
    pixels: bool,
    epochs: int,
    batch_size: int,
    backend: str,
    stop: Stop,
) -> float | None:
    """Train one layer; its mean loss in the last epoch, or, stopped, None and the layer as it was."""
    optimizer, before = Adam(layer.parameters(), lr=LR), layer.state_dict()

    def step(batch: Array) -> tg.Tensor:
        optimizer.zero_grad()
        made = layer(batch)
        loss: tg.Tensor = LOSSES["bce"].value(made, batch) if pixels else distance(made, batch)
        loss.backward()
        optimizer.step()
        return loss

    replayed = None if backend == "eager" else captured(step, backend)
    loader = DataLoader(x, batch_size=batch_size, shuffle=True, rng=seed)
    for _ in range(epochs):
        if replayed is not None:
            order = loader.rows()
            losses = replayed.epoch(x, order=order, batch_size=batch_size, progress=lambda done, steps, made: stop())
            loader.advance(len(loader))
        else:
            losses = np.array([step(batch).item() for batch in loader if not stop()])
        if len(losses) < len(loader):
            layer.load_state_dict(before)
            return None
    return float(np.mean(losses))
