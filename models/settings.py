"""What a run is told: one frozen record, which the command line fills, JSON keeps and everything else reads."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from models.data.sets import DATA_SETS, DataSet
from models.files import RunError
from models.losses import LOSSES
from models.mlp import ACTIVATIONS, INITS
from models.networks import NETWORKS, SHAPING
from models.optimizers import OPTIMIZERS, RATES, SCHEDULES

CLASSES = 10
BACKENDS = ("auto", "numpy", "numba", "eager")


def parse_sizes(text: str) -> tuple[int, ...]:
    """The sizes in "784,128,10"; ValueError if one of them is no whole number.

    >>> parse_sizes("784,128,10")
    (784, 128, 10)
    """
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r}: must be whole numbers with commas between them, such as 784,128,10") from None


def _option(
    default: Any, help_text: str, parse: Callable[[str], Any] = str, choices: tuple[str, ...] | None = None
) -> Any:
    return field(default=default, metadata={"help": help_text, "parse": parse, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run; the defaults reach about 98 % on MNIST's test images. RunError for any that make no sense.

    Each field carries the help text and the parser of its command-line option.

    >>> Settings(lr=0.5).lr
    0.5
    >>> Settings(momentum=1.5)
    Traceback (most recent call last):
    models.files.RunError: momentum 1.5: must be at least 0 and less than 1
    """

    data: str = _option(
        "mnist", "the images; models/data/README.md says where CIFAR-10 is looked for", choices=tuple(DATA_SETS)
    )
    model: str = _option("mlp", "the network", choices=tuple(NETWORKS))
    sizes: tuple[int, ...] = _option((784, 256, 10), "neurons: inputs, hidden layers, outputs", parse_sizes)
    activation: str = _option("relu", "of the hidden layers", choices=tuple(ACTIVATIONS))
    loss: str = _option("cross_entropy", "what is made small", choices=tuple(LOSSES))
    init: str = _option("he", "how the weights are drawn", choices=INITS)
    init_std: float = _option(1.0, "standard deviation of the weights, for --init normal", float)
    start: str = _option("", "folder of an autoencoder's run, whose encoder the first layers start as")
    pretrain: int = _option(0, "passes in which each hidden layer first learns to code what it is fed", int)
    optimizer: str = _option("sgd", "how the weights follow the gradients", choices=tuple(OPTIMIZERS))
    lr: float = _option(0.04, "learning rate", float)
    momentum: float = _option(0.9, "share of the last step that is carried into the next", float)
    dampening: float = _option(0.0, "share of the gradient that momentum leaves out", float)
    weight_decay: float = _option(0.0, "pull of every parameter towards zero", float)
    nesterov: bool = _option(False, "Nesterov's momentum", bool)
    schedule: str = _option("constant", "what becomes of the learning rate after each epoch", choices=tuple(SCHEDULES))
    gamma: float = _option(0.5, "factor of the schedules step and exponential", float)
    step_size: int = _option(3, "epochs between two steps of the schedule step", int)
    batch_size: int = _option(50, "examples a step", int)
    shift: int = _option(0, "training images are moved by up to so many pixels, anew in every epoch", int)
    flip: bool = _option(False, "half of the training images are mirrored, drawn anew in every epoch", bool)
    epochs: int = _option(10, "passes over the training examples", int)
    seed: int = _option(0, "of all that is drawn: split, weights, order", int)
    validation: int = _option(5_000, "training images held out, to watch progress on", int)
    examples: int | None = _option(None, "training images used, drawn from the rest (default: all the rest)", int)
    watch: int = _option(0, "look inside the network every so many steps; 0: never", int)
    backend: str = _option(
        "auto", "what computes the steps; auto is numba if it is installed, else numpy", choices=BACKENDS
    )

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_network(self)
        _check_optimizer(self)
        _check_amounts(self)

    @property
    def images(self) -> DataSet:
        """The row of `data`."""
        return DATA_SETS[self.data]

    def training_examples(self) -> int:
        """How many images the run trains on."""
        return self.images.examples - self.validation if self.examples is None else self.examples

    @classmethod
    def chosen(cls, **given: Any) -> "Settings":
        """The settings that are `given`; the others are the defaults of the network and the optimizer that they name.

        >>> Settings.chosen(epochs=3).epochs
        3
        """
        network, rates = NETWORKS.get(given.get("model", cls.model)), OPTIMIZERS.get(given.get("optimizer", ""))
        defaults = dict(network.defaults) if network else {}
        if rates and given["optimizer"] != defaults.get("optimizer", cls.optimizer):
            defaults |= rates.defaults
        if images := DATA_SETS.get(given.get("data", "")):
            defaults["sizes"] = (images.pixels, *defaults.get("sizes", cls.sizes)[1:])
        return cls(**{**defaults, **given})

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can say; `from_json` reads it back."""
        return asdict(self) | {"sizes": list(self.sizes)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: Path) -> "Settings":
        """The settings in a dict that was read from `source`; RunError, which names it, if they cannot be used."""
        names = {option.name for option in fields(cls)}
        if set(content) != names:
            different = ", ".join(sorted(set(content) ^ names))
            raise RunError(f"{source}: not the settings of a run: missing or unknown {different}")
        for option in fields(cls):
            if not _has_type(content[option.name], option.default):
                raise RunError(f"{source}: {option.name} {content[option.name]!r}: has the wrong type")
        try:
            return cls(**{**content, "sizes": tuple(content["sizes"])})
        except RunError as error:
            raise RunError(f"{source}: {error}") from None


def _has_type(value: Any, default: Any) -> bool:
    """Whether JSON's `value` can stand where `default` stands."""
    if isinstance(default, tuple):
        return isinstance(value, list) and all(type(size) is int for size in value)
    if default is None:
        return value is None or type(value) is int
    return type(value) is type(default) or (type(default) is float and type(value) is int)


def _require(condition: bool, name: str, value: Any, must: str) -> None:
    if not condition:
        raise RunError(f"{name} {value}: must be {must}")


def _check_choices(settings: Settings) -> None:
    for option in fields(settings):
        value, choices = getattr(settings, option.name), option.metadata["choices"]
        _require(not choices or value in choices, option.name, repr(value), f"one of {', '.join(choices or ())}")


def _check_network(settings: Settings) -> None:
    network = NETWORKS[settings.model]
    for name in SHAPING:
        given, default = getattr(settings, name), network.defaults.get(name, getattr(Settings, name))
        if name not in network.shaped_by and (given[1:] != default[1:] if name == "sizes" else given != default):
            raise RunError(f"{name.replace('_', ' ')}: {settings.model} has a shape of its own: leave it out")
    _require(
        settings.loss in network.losses, "loss", settings.loss, f"{' or '.join(network.losses)} for {settings.model}"
    )
    _require(settings.data in network.data, "data", settings.data, f"{' or '.join(network.data)} for {settings.model}")
    sizes, text = settings.sizes, ",".join(map(str, settings.sizes))
    _require(len(sizes) >= 2 and min(sizes) >= 1, "sizes", text, "two or more whole numbers of at least 1")
    first = f"{settings.images.pixels} first, {settings.images.title}'s pixels"
    if not network.reconstructs and "sizes" in network.shaped_by:
        ends = (sizes[0], sizes[-1]) == (settings.images.pixels, CLASSES)
        _require(ends, "sizes", text, f"{first}, and {CLASSES} last, its classes")
    _require(sizes[0] == settings.images.pixels or "sizes" not in network.shaped_by, "sizes", text, first)
    _require(settings.pretrain >= 0, "pretrain", settings.pretrain, "at least 0")
    if settings.pretrain and not network.pretrains:
        raise RunError(f"pretrain: the layers of {settings.model} cannot be pre-trained: leave it out")
    if settings.start and settings.model != "mlp":
        raise RunError(f"start: {settings.model} does not start from an encoder, mlp does: leave it out")
    _require(0 < settings.init_std < math.inf, "init std", settings.init_std, "greater than 0 and finite")


def _check_optimizer(settings: Settings) -> None:
    _require(0 < settings.lr < math.inf, "lr", settings.lr, "greater than 0 and finite")
    _require(0 <= settings.momentum < 1, "momentum", settings.momentum, "at least 0 and less than 1")
    _require(0 <= settings.dampening <= 1, "dampening", settings.dampening, "from 0 to 1")
    _require(0 <= settings.weight_decay < math.inf, "weight decay", settings.weight_decay, "at least 0 and finite")
    _require(0 < settings.gamma <= 1, "gamma", settings.gamma, "greater than 0 and at most 1")
    _require(settings.step_size >= 1, "step size", settings.step_size, "at least 1")
    for name in RATES:
        if name not in OPTIMIZERS[settings.optimizer].heeds and getattr(settings, name):
            raise RunError(f"{name} {getattr(settings, name)}: {settings.optimizer} has none: leave it out")
    if settings.nesterov and (settings.momentum == 0 or settings.dampening != 0):
        raise RunError("nesterov: needs a momentum greater than 0 and a dampening of 0")


def _check_amounts(settings: Settings) -> None:
    _require(0 <= settings.shift < 28, "shift", settings.shift, "from 0 to 27 pixels")
    _require(settings.epochs >= 1, "epochs", settings.epochs, "at least 1")
    _require(settings.watch >= 0, "watch", settings.watch, "at least 0")
    _require(settings.seed >= 0, "seed", settings.seed, "at least 0")
    total = settings.images.examples
    left = total - settings.validation
    must = f"from 0 to {total - 1}, so that some images are left"
    _require(1 <= left <= total, "validation", settings.validation, must)
    if settings.examples is not None:
        must = f"from 1 to {left}, the images that the validation leaves"
        _require(1 <= settings.examples <= left, "examples", settings.examples, must)
    count = settings.training_examples()
    must = f"from 1 to {count}, the number of training examples"
    _require(1 <= settings.batch_size <= count, "batch size", settings.batch_size, must)
