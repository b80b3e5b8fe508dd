"""Each competitor in a process of its own, told over a pipe when to run; at any time one of them runs.

Why processes: libraries that share one process fight over its cores. torch's OpenMP threads, OpenBLAS's and JAX's
keep spinning for milliseconds after a product, waiting for the next one, and slow whoever runs then. Here a worker
answers only when its idle threads have gone to sleep (`measure.settle`), so nobody runs beside the one that is timed.
Each block runs untimed steps first and then starts again from the initial parameters, so that all blocks of a worker
do the same work, warm.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.hand_derived import Array, Network, initial_parameters, random_batches
from benchmarks.peer import Peer
from benchmarks.peers import PEERS

DATA_BYTES = 16_000_000  # about how much distinct input a worker cycles through
# Before the clock starts. Threads that wake together on one core are spread over the cores by the system only after
# some 50 ms, and until then a product on two threads takes twice its time.
WARM_SECONDS = 0.08


@dataclass
class Loaded:
    """What a worker says about a peer that is ready."""

    first_step: float  # seconds from the first call of a step to its result, compilation included
    losses: list[float]  # of the first steps
    weights: list[Array]  # after them


@dataclass
class Timed:
    """One block."""

    seconds: float  # of one step
    others: float  # cores that other processes kept busy meanwhile


class Worker:
    """The near end of a worker process. Every method waits for the answer; a failure there is a RuntimeError here."""

    def __init__(self, peer: str, far: type[FarEnd] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        self.process = context.Process(target=serve, args=(far_end, peer, far or FarEnd), daemon=True)
        self.process.start()
        far_end.close()

    def load(self, network: Network, seed: int, check_steps: int) -> Loaded:
        """Make the peer for `network` and train it for `check_steps` steps."""
        answer: Loaded = self.ask("load", network, seed, check_steps)
        return answer

    def calibrate(self, block: float) -> int:
        """How many steps fill `block` seconds: the most of three tries, for what disturbs one makes it less."""
        return max(int(self.ask("calibrate", block)) for _ in range(3))

    def block(self, count: int) -> Timed:
        """Time a block of `count` steps."""
        timed: Timed = self.ask("block", count)
        return timed

    def ask(self, *message: Any) -> Any:
        """Send a message; returns its answer."""
        try:
            self.connection.send(message)
            succeeded, answer = self.connection.recv()
        except (EOFError, OSError):
            raise RuntimeError("the worker process died") from None
        if not succeeded:
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()


def serve(connection: Any, name: str, kind: type[FarEnd]) -> None:
    """The far end: answers messages until the pipe closes."""
    far = kind(name)
    while True:
        try:
            method, *arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, getattr(far, method)(*arguments)
        except ImportError as error:
            answer = False, f"not installed: {error}"
        except Exception as error:
            answer = False, "".join(traceback.format_exception_only(error)).strip()
        measure.settle()
        connection.send(answer)


class FarEnd:
    """What a worker process can do."""

    peer: Peer

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, network: Network, seed: int, check_steps: int) -> Loaded:
        parameters, batches = problem(network, seed, np.float32)
        peer = self.peer = PEERS[self.name](network, parameters, batches)
        peer.reset()
        start = time.perf_counter()
        peer.run(1)
        first_step = time.perf_counter() - start
        if not peer.trains:
            return Loaded(first_step, [], [])
        peer.reset()
        losses = [peer.value(peer.step(*peer.batches[i % len(peer.batches)])) for i in range(check_steps)]
        return Loaded(first_step, losses, [np.array(weight) for weight in peer.weights()])

    def calibrate(self, block: float) -> int:
        self.warm(1)
        return measure.calls_per_block(self.seconds_per_step, block)

    def block(self, count: int) -> Timed:
        start, busy, mine = time.perf_counter(), measure.busy_core_seconds(), time.process_time()
        self.warm(max(1, count // 8))
        seconds = self.seconds_per_step(count)
        others = measure.busy_core_seconds() - busy - (time.process_time() - mine)
        return Timed(seconds, others / (time.perf_counter() - start))

    def warm(self, count: int) -> None:
        """Run `count` steps again and again until WARM_SECONDS have passed; then back to the initial parameters."""
        self.peer.reset()
        end = time.perf_counter() + WARM_SECONDS
        while time.perf_counter() < end:
            self.peer.run(count)
        self.peer.reset()

    def seconds_per_step(self, count: int) -> float:
        start = time.perf_counter()
        self.peer.run(count)
        return (time.perf_counter() - start) / count


def problem(network: Network, seed: int, dtype: Any) -> tuple[list[Array], list[tuple[Array, Array]]]:
    """The initial parameters and the batches that every peer gets; the same bits in every process."""
    rng = np.random.default_rng(seed)
    parameters = initial_parameters(network, rng, dtype)
    bytes_per_batch = network.batch * network.sizes[0] * 4
    count = int(np.clip(DATA_BYTES // bytes_per_batch, 1, 64))
    return parameters, random_batches(network, count, rng, dtype)
