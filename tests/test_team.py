"""The threads that share work on large arrays."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

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

    def test_one_thread(self, two_threads):
        numpy_blas().set_threads(1)
        threads = []
        _team.share(lambda piece: threads.append(threading.current_thread()), 3)
        assert threads == [threading.current_thread()] * 3


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
