"""What is seen of a run while it goes on, and how it is stopped."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from tqdm import tqdm

from models.outputs import show
from models.training import Epoch, Measured, Partial, Run


class Progress:
    """A bar for the epoch under way, on a terminal, and a line for each finished epoch, everywhere."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.examples = run.settings.training_examples()
        self.bar: tqdm[None] | None = None

    def step(self, partial: Partial) -> None:
        """Show a step: mean loss and accuracy of the epoch so far, and examples a second."""
        if self.bar is None:
            self.bar = tqdm(
                desc=f"epoch {len(self.run.history) + 1}/{self.run.settings.epochs}",
                initial=partial.seen,
                total=self.examples,
                unit=" examples",
                unit_scale=True,
                leave=False,
                dynamic_ncols=True,
                disable=None,
            )
        if self.bar.update(partial.seen - self.bar.n):
            accuracy = partial.correct / partial.seen if self.run.classifies else None
            self.bar.set_postfix_str(show(Measured(partial.loss / partial.seen, accuracy)))

    def layer(self, losses: list[float]) -> None:
        """Show a layer that was pre-trained, the last of these."""
        print(f"layer {len(losses)} pre-trained: loss {losses[-1]:.4f}", flush=True)

    def epoch(self, epoch: Epoch) -> None:
        """Show a finished epoch."""
        self.close()
        parts = [f"training {show(Measured(epoch.train_loss, epoch.train_accuracy))}"]
        if epoch.validation_loss is not None:
            parts.append(f"validation {show(Measured(epoch.validation_loss, epoch.validation_accuracy))}")
        parts.append(f"{epoch.examples_per_second:,.0f} examples/s")
        print(f"epoch {epoch.epoch}/{self.run.settings.epochs}: {'; '.join(parts)}", flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C only makes the function that is yielded answer True, so that no step is cut in half;
    the second one stops at once. Outside the main thread, which alone gets signals, the answer stays False."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, b"\nstopping after this step and saving; Ctrl-C again stops at once\n")  # print is not reentrant

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)
