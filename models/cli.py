"""The command line: `python -m models train` and `python -m models evaluate FOLDER`.

Exit codes: 0 done; 2 something in the way, said in one line on stderr; 130 stopped by Ctrl-C, what was learned is kept.
"""

import argparse
import contextlib
import datetime
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from models import outputs
from models.checkpoint import load_checkpoint
from models.files import RunError
from models.papers.commands import add_commands
from models.pretraining import pretrain
from models.progress import Progress, asked_to_stop
from models.settings import Settings
from models.training import Run, new_run, prepare, train

CHANGEABLE = ("epochs", "backend")  # what may be given anew when a run is continued
RESUME = "continue this run; --epochs may be raised, and another --backend goes on within rounding only"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line. The options of a run come from the fields of `Settings`."""
    parser = _Parser(prog="python -m models", description="Train and evaluate networks on images.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{train,evaluate,papers,reproduce}")
    command = commands.add_parser("train", help="train a network and write a folder of results", allow_abbrev=False)
    group = command.add_argument_group("the run")
    for option in fields(Settings):
        _add_option(group, option.name, option.default, option.metadata)
    group.add_argument(
        "--eager",
        dest="backend",
        action="store_const",
        const="eager",
        default=argparse.SUPPRESS,
        help="compute the steps operation by operation: the same as --backend eager",
    )
    group = command.add_argument_group("the folder")
    group.add_argument("--out", type=Path, metavar="FOLDER", help="where results go (default: runs/DATE-TIME)")
    group.add_argument("--force", action="store_true", help="replace the run that the folder holds")
    group.add_argument("--resume", type=Path, metavar="FOLDER", help=RESUME)
    group.add_argument("--no-figures", action="store_true", help="draw no figures")
    command.set_defaults(action=_train)
    command = commands.add_parser("evaluate", help="test the network of a run again", allow_abbrev=False)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="the folder that train wrote")
    command.set_defaults(action=_evaluate)
    add_commands(commands)
    return parser


def _add_option(group: Any, name: str, default: Any, metadata: Any) -> None:
    """Add the option of one setting. It has no default here, so that the namespace holds what was really given."""
    flag, parse = "--" + name.replace("_", "-"), metadata["parse"]
    if parse is bool:
        group.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=metadata["help"])
        return
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    group.add_argument(
        flag,
        type=_named(parse),
        choices=metadata["choices"],
        default=argparse.SUPPRESS,
        metavar=None if metadata["choices"] else {int: "N", float: "X", str: "FOLDER"}.get(parse, "LIST"),
        help=metadata["help"] if default in (None, "") else f"{metadata['help']} (default: {shown})",
    )


def _named(parse: Any) -> Any:
    """`parse`, its ValueError turned into argparse's error, which keeps the message."""
    if parse in (int, float, str):
        return parse

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (default: the program's own) and give the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.action(options)
        return code
    except RunError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except MemoryError as error:
        message = f"not enough memory: {error}"
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(f"error: {message}", file=sys.stderr)
    return 2


def _train(options: argparse.Namespace) -> int:
    given = {option.name: getattr(options, option.name) for option in fields(Settings) if hasattr(options, option.name)}
    run, folder = _resumed(options, given) if options.resume else _fresh(options, given)
    print(f"{outputs.describe(run.settings)}; {run.settings.training_examples():,} training images; into {folder}")
    data = run.settings.images.load()
    progress = Progress(run)

    def after_epoch(run: Run) -> None:
        progress.epoch(run.history[-1])
        outputs.write_progress(folder, run)

    def after_layer(run: Run) -> None:
        progress.layer(run.pretrained)
        outputs.write_progress(folder, run)

    with asked_to_stop() as stop, contextlib.closing(progress):
        training, validation = prepare(run.settings, data)
        done = pretrain(run, training, stop=stop, after=after_layer)
        done = done and train(run, training, validation, stop=stop, show=progress.step, after_epoch=after_epoch)
    if not done:
        outputs.write_progress(folder, run)
    tested = outputs.write_results(folder, run, data, interrupted=not done, figures=not options.no_figures)
    print(f"test {outputs.show(tested)}; written to {folder}", flush=True)
    if not done:
        print(f"stopped; continue with: python -m models train --resume {folder}", file=sys.stderr)
    return 0 if done else 130


def _fresh(options: argparse.Namespace, given: dict[str, Any]) -> tuple[Run, Path]:
    """A new run and its folder, which is made, or cleared, once nothing else can be wrong."""
    run = new_run(Settings.chosen(**given))
    run.settings.images.load()  # if it is missing, nothing is to be changed
    if run.settings.start:
        outputs.start_from(Path(run.settings.start), run)
    folder = options.out or Path("runs", datetime.datetime.now().strftime("%Y%m%d-%H%M%S"))
    outputs.open_folder(folder, options.force)
    outputs.write_settings(folder, run.settings)
    outputs.write_progress(folder, run)
    return run, folder


def _resumed(options: argparse.Namespace, given: dict[str, Any]) -> tuple[Run, Path]:
    """The run in the folder to be resumed, and that folder."""
    if options.out or options.force:
        raise RunError("--resume writes to the folder of the run: leave out --out and --force")
    if fixed := sorted(given.keys() - set(CHANGEABLE)):
        names = ", ".join("--" + name.replace("_", "-") for name in fixed)
        raise RunError(f"--resume keeps the settings of the run: leave out {names}")
    folder: Path = options.resume
    run = load_checkpoint(folder / outputs.CHECKPOINT, **given)
    if run.settings.schedule == "cosine" and run.schedule.state_dict()["T_max"] != run.settings.epochs:
        raise RunError("--epochs: the cosine schedule was laid out for the epochs of the run: leave it out")
    if run.settings.epochs < len(run.history):
        raise RunError(f"--epochs {run.settings.epochs}: the run in {folder} has already done {len(run.history)}")
    outputs.write_settings(folder, run.settings)
    return run, folder


def _evaluate(options: argparse.Namespace) -> int:
    print(f"test {outputs.show(outputs.evaluate(options.folder))}")
    return 0
