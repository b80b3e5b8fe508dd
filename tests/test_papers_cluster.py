"""Runs on a Dask cluster: a real scheduler and two real workers on loopback, one of which is killed in mid-run."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import models
from models.files import RunError
from models.papers import engine
from models.papers.tasks import Phase, Task

ROOT = Path(models.__file__).parent.parent
distributed = pytest.importorskip("distributed", reason="distributed is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # Dask's own, of its shutting down

SMALL = Task(sizes=(784, 8, 10), examples=500, tests=100, phases=(Phase(epochs=4, lr=0.5, batch_size=5),))
LONG = replace(SMALL, phases=(Phase(epochs=60, lr=0.1),))


def start(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a scheduler, and its two workers by their process ids."""
    file = tmp_path_factory.mktemp("dask") / "scheduler.json"
    scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    started = [start(*scheduler, "--scheduler-file", str(file))]
    worker = ["distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard"]
    started += [start(*worker, "--no-nanny", "--local-directory", str(file.parent)) for _ in range(2)]
    try:
        with distributed.Client(scheduler_file=str(file), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address, client, started[1:]
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def test_a_worker_that_is_killed_loses_nothing(cluster, tmp_path):
    address, client, workers = cluster
    tasks = {f"seed {seed}": replace(LONG if seed < 2 else SMALL, seed=seed) for seed in range(5)}
    lines: list[str] = []
    work = engine.Work(tmp_path, tasks, backend="numpy", say=lines.append)

    def begin():
        made = engine.cluster(address)
        kill_when_busy(client, workers[0])
        return made

    work.do(begin)
    assert workers[0].wait(timeout=30) == -signal.SIGKILL
    assert not work.missing()
    assert len(lines) == 5
    local = engine.do(tasks["seed 2"], None, "numpy")[0]
    assert engine.load(tmp_path, tasks["seed 2"])["final"] == local["final"]


def kill_when_busy(client, worker) -> None:
    """Kill the worker, from a thread, as soon as it is computing a run."""
    import threading

    def wait_and_kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            busy = {a for a, keys in client.processing().items() if keys}
            pids = client.run(os.getpid, on_error="ignore")
            if any(pids.get(address) == worker.pid for address in busy):
                time.sleep(0.2)
                break
        os.kill(worker.pid, signal.SIGKILL)

    threading.Thread(target=wait_and_kill).start()


def test_no_scheduler_there(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "SCHEDULER_SECONDS", 0.5)
    work = engine.Work(tmp_path, {"a": SMALL}, say=lambda line: None)
    with pytest.raises(RunError, match="no scheduler answers there"):
        work.do(lambda: engine.cluster("tcp://127.0.0.1:9"))
