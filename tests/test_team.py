"""The threads that share work on large arrays."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import _team
from tinygrad_scratch._blas import numpy_blas


class TestShare:
    def test_each_piece_once(self, two_threads):
        for pieces in (1, 2, 3, 50):
            done = np.zeros(pieces, int)

            def work(piece, done=done):
                done[piece] += 1

            _team.share(work, pieces)
            assert done.tolist() == [1] * pieces

    def test_two_threads_at_once(self, two_threads):
        both = threading.Barrier(2)  # which one thread alone would never pass
        names = []

        def work(piece):
            both.wait(60)
            names.append(threading.current_thread().name)

        _team.share(work, 2)
        assert len(set(names)) == 2

    def test_products_take_one_thread_meanwhile(self, two_threads):
        seen = []
        _team.share(lambda piece: seen.append(numpy_blas().get_threads()), 4)
        assert seen == [1] * 4
        assert numpy_blas().get_threads() == 2

    def test_an_error_is_raised_when_all_is_done(self, two_threads):
        done = []

        def work(piece):
            done.append(piece)
            if piece == 1:
                raise ValueError("piece 1")

        with pytest.raises(ValueError, match="piece 1"):
            _team.share(work, 5)
        assert sorted(done) == [0, 1, 2, 3, 4]
        assert numpy_blas().get_threads() == 2

    def test_flags_are_the_callers(self, two_threads):
        both = threading.Barrier(2)

        def work(piece):
            both.wait(60)
            assert np.geterr()["over"] == "raise"

        with np.errstate(over="raise"):
            _team.share(work, 2)

    def test_while_products_take_one_thread(self, two_threads):
        """However deep, and from however many threads: the last to leave gives products their threads back."""
        leave, entered = threading.Event(), threading.Event()

        def stay():
            with _team.products_alone():
                entered.set()
                leave.wait(60)

        other = threading.Thread(target=stay)
        with _team.products_alone():
            other.start()
            assert entered.wait(60)
            with _team.products_alone():
                assert (numpy_blas().get_threads(), _team.products(), _team.size()) == (1, 2, 2)
        assert (numpy_blas().get_threads(), _team.size()) == (1, 2)
        leave.set()
        other.join()
        assert (numpy_blas().get_threads(), _team.size()) == (2, 2)

    def test_where_the_system_gives_no_threads(self, two_threads, monkeypatch):
        def refuse(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(_team, "helpers", _team._Helpers())
        monkeypatch.setattr(threading.Thread, "start", refuse)
        done = []
        _team.share(done.append, 3)
        assert done == [0, 1, 2]

    def test_one_thread(self, two_threads):
        numpy_blas().set_threads(1)
        threads = []
        _team.share(lambda piece: threads.append(threading.current_thread()), 3)
        assert threads == [threading.current_thread()] * 3


@given(st.integers(0, 300), st.integers(0, 1 << 22), st.integers(1, 1 << 21))
def test_runs_are_the_whole_in_order_and_worth_a_thread(number, each, least):
    runs = _team.runs(number, each, least)
    assert [i for run in runs for i in range(run.start, run.stop)] == list(range(number))
    assert len(runs) in {1 << n for n in range(_team.RUNS.bit_length())}
    assert len(runs) == 1 or min(run.stop - run.start for run in runs) >= max(1, number // len(runs))
    assert len(runs) == 1 or number * each >= len(runs) * least


CONVOLUTIONS = {
    "of the cotangent's windows": ((16, 8, 24, 24), (8, 8, 3, 3), {"padding": 1}),
    "in groups": ((16, 8, 24, 24), (8, 4, 3, 3), {"padding": "same", "groups": 2, "dilation": (1, 2)}),
    "with steps": ((40, 6, 33, 31), (12, 6, 3, 5), {"stride": (2, 3), "padding": (1, 2)}),
    "with few channels": ((30, 2, 28, 28), (16, 2, 5, 5), {}),
    "of single pixels": ((20, 16, 32, 32), (16, 16, 1, 1), {}),
}
POOLS = {
    "apart": ((9, 32, 32, 32), {"kernel_size": 2}),
    "that overlap": ((9, 32, 32, 32), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "with three axes": ((300, 32, 31), {"kernel_size": (2, 3)}),
}


def _side_by_side(parts):
    """A few images at a time, and their results side by side."""
    return np.concatenate([np.asarray(part) for part in parts])


class TestTheSameBits:
    """Images are shared in runs that the shapes fix."""

    @pytest.fixture(autouse=True)
    def counted(self, two_threads, monkeypatch):
        """How many pieces were shared each time."""
        share, self.pieces = _team.share, []
        monkeypatch.setattr(_team, "share", lambda work, pieces: (self.pieces.append(pieces), share(work, pieces)))

    def assert_same(self, compute):
        found = []
        self.pieces.clear()
        for threads in (1, 2):
            numpy_blas().set_threads(threads)
            found.append(compute())
        assert [pieces > 1 for pieces in self.pieces] == [True, True], "nothing was shared"
        assert found[0].dtype == np.float32
        np.testing.assert_array_equal(*found)
        return found[0]

    @pytest.mark.parametrize("case", CONVOLUTIONS)
    def test_convolution(self, case, rng):
        size, kernel, options = CONVOLUTIONS[case]
        x, w = (rng.normal(size=shape).astype(np.float32) for shape in (size, kernel))
        b = rng.normal(size=kernel[0]).astype(np.float32)
        pairs = np.array_split(np.arange(len(x)), len(x) // 2)
        y = self.assert_same(lambda: tg.conv2d(x, w, **options))
        np.testing.assert_allclose(y, _side_by_side(tg.conv2d(x[i], w, **options) for i in pairs), rtol=1e-4, atol=1e-4)
        layer = self.assert_same(lambda: tg.conv2d_affine(x, w, b, **options))
        np.testing.assert_allclose(layer, y + b[:, None, None], rtol=1e-5, atol=1e-5)
        g = rng.normal(size=y.shape).astype(np.float32)
        back = self.assert_same(lambda: tg.conv2d_input(g, w, size=size[2:], **options))
        parts = _side_by_side(tg.conv2d_input(g[i], w, size=size[2:], **options) for i in pairs)
        np.testing.assert_allclose(back, parts, rtol=1e-4, atol=1e-4)
        whole = self.assert_same(lambda: tg.conv2d_weight(g, x, kernel_size=kernel[2:], **options))
        parts = sum(tg.conv2d_weight(g[i], x[i], kernel_size=kernel[2:], **options).astype(float) for i in pairs)
        np.testing.assert_allclose(whole, parts, rtol=1e-3, atol=1e-2)

    @pytest.mark.parametrize("case", POOLS)
    def test_pools(self, case, rng):
        size, options = POOLS[case]
        x = np.maximum(rng.normal(size=size), 0).astype(np.float32)  # with ties
        y = self.assert_same(lambda: tg.max_pool2d(x, **options))
        np.testing.assert_array_equal(y, np.stack([np.asarray(tg.max_pool2d(image, **options)) for image in x]))
        g = rng.normal(size=y.shape).astype(np.float32)
        back = self.assert_same(lambda: tg.max_pool2d_input(g, x, **options))
        parts = [np.asarray(tg.max_pool2d_input(h, image, **options)) for h, image in zip(g, x, strict=True)]
        np.testing.assert_array_equal(back, np.stack(parts))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork(two_threads):
    program = """
import os
from tinygrad_scratch import _team
_team.share(lambda piece: None, 2)
child = os.fork()
if not child:
    done = []
    _team.share(done.append, 3)
    os._exit(0 if sorted(done) == [0, 1, 2] else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=120)
