"""CIFAR-10: batches as they were published in form, hostile ones, and downloads that are interrupted."""

import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from models.data import cifar10
from models.data.cifar10 import download, find, load_cifar10, parse_batch, read_batch
from models.files import RunError


def legacy(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch in the form of the published ones: a Python 2 pickle, protocol 2, strings as bytes."""
    raw = pixels.tobytes()
    return b"".join(
        [
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR",
            b"(K\x01J" + len(pixels).to_bytes(4, "little") + b"M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR",
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
            + len(raw).to_bytes(4, "little")
            + raw
            + b"tb",
            b"U\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e",
            b"U\x0bbatch_labelU\x05batchu.",
        ]
    )


@pytest.fixture
def batch(rng) -> tuple[np.ndarray, list[int], bytes]:
    pixels = rng.integers(0, 256, (7, 3072), dtype=np.uint8)
    labels = rng.integers(0, 10, 7).tolist()
    return pixels, labels, legacy(pixels, labels)


class TestReading:
    def test_the_published_form(self, batch):
        pixels, labels, content = batch
        x, y = parse_batch(content, "batch")
        assert (x.shape, x.dtype, y.tolist()) == ((7, 3, 32, 32), np.uint8, labels)
        assert x.tobytes() == pixels.tobytes()
        assert pickle.loads(content, encoding="bytes")[b"data"].tobytes() == pixels.tobytes()  # as NumPy reads it

    def test_what_todays_numpy_writes(self, batch):
        pixels, labels, _ = batch
        x, y = parse_batch(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=4), "batch")
        assert (x.tobytes(), y.tolist()) == (pixels.tobytes(), labels)

    def test_a_file_is_read_only_with_its_hash(self, batch, tmp_path):
        path = tmp_path / "data_batch_1"
        path.write_bytes(batch[2])
        assert len(read_batch(path, hashlib.sha256(batch[2]).hexdigest())[1]) == 7
        with pytest.raises(RunError, match=r"data_batch_1: not the published file.*nothing of it was read"):
            read_batch(path, "0" * 64)
        with pytest.raises(RunError, match="No such file"):
            read_batch(tmp_path / "none", "0" * 64)

    @pytest.mark.parametrize(
        "call",
        [
            b"cos\nsystem\n(S'touch FILE'\ntR.",
            b'cbuiltins\neval\n(S\'open("FILE", "w")\'\ntR.',
            b'c__builtin__\nexec\n(S\'open("FILE", "w")\'\ntR.',
            b"cnumpy.core.multiarray\nscalar\n(tR.",
            b"cmodels.data.cifar10\ndownload\n(tR.",
            b"csubprocess\nPopen\n(S'touch FILE'\ntR.",
            b"(S'touch FILE'\nios\nsystem\n.",
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch FILE\x85R.",
        ],
    )
    def test_hostile_pickles_run_nothing(self, call, tmp_path):
        path = tmp_path / "ran"
        with pytest.raises(RunError, match="not a batch of CIFAR-10"):
            parse_batch(call.replace(b"FILE", str(path).encode()), "batch")
        assert not path.exists()

    def test_any_cut_or_changed_byte_is_an_error_or_a_batch(self, batch, rng):
        content = batch[2]
        for length in [*range(0, 200, 7), *rng.integers(200, len(content), 20).tolist()]:
            with pytest.raises(RunError, match="not a batch of CIFAR-10"):
                parse_batch(content[:length], "batch")
        ends = [*range(250), *range(len(content) - 60, len(content))]
        for place in ends:
            changed = bytearray(content)
            changed[place] ^= 1 << int(rng.integers(8))
            try:
                x, y = parse_batch(bytes(changed), "batch")
            except RunError:
                continue
            assert len(x) == len(y)

    @pytest.mark.parametrize("labels", [[1, 2], [1] * 6 + [10], "abcdefg", None])
    def test_labels_that_do_not_fit(self, batch, labels):
        with pytest.raises(RunError, match="not a batch of CIFAR-10"):
            parse_batch(pickle.dumps({b"data": batch[0], b"labels": labels}, protocol=4), "batch")


class TestFinding:
    @pytest.mark.parametrize("inside", ["", "cifar-10-batches-py", "cifar-10/cifar-10-batches-py"])
    def test_the_folder_or_one_that_holds_it(self, inside, tmp_path, monkeypatch):
        place = tmp_path / inside
        place.mkdir(parents=True, exist_ok=True)
        (place / "test_batch").write_bytes(b"")
        assert find(tmp_path) == place
        monkeypatch.setenv("TINYGRAD_SCRATCH_DATA", str(tmp_path))
        assert find() == place

    def test_nowhere(self, tmp_path, monkeypatch):
        monkeypatch.delenv("TINYGRAD_SCRATCH_DATA", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        with pytest.raises(RunError, match=r"--data-dir or set TINYGRAD_SCRATCH_DATA.*--download"):
            load_cifar10()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`, in pieces where it is asked for one; breaks off after `limit` bytes if that is given."""

    content, limit, asked = b"", None, []

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        type(self).asked.append(start)
        if start >= len(self.content):
            self.send_error(416)
            return
        rest = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.limit])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    Server.content, Server.limit, Server.asked = b"", None, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/cifar-10-python.tar.gz"
        made.shutdown()
        thread.join()


@pytest.fixture
def archive(batch, monkeypatch) -> bytes:
    """An archive with the names of the published one, of small batches; the reader expects their hashes."""
    buffer, content = io.BytesIO(), batch[2]
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in (*cifar10.TRAINING, *cifar10.TEST, "../../outside"):
            info = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    digest = hashlib.sha256(content).hexdigest()
    for table in ("TRAINING", "TEST"):
        monkeypatch.setattr(cifar10, table, dict.fromkeys(getattr(cifar10, table), digest))
    return buffer.getvalue()


class TestDownload:
    def test_fetched_checked_unpacked_and_read(self, server, archive, tmp_path):
        Server.content = archive
        place = download(server, hashlib.sha256(archive).hexdigest(), tmp_path / "cache")
        names = sorted(path.name for path in place.iterdir())
        assert names == sorted([*cifar10.TRAINING, *cifar10.TEST])
        assert [
            path.name for path in tmp_path.rglob("*") if path.name in ("outside", "cifar-10-python.tar.gz.part")
        ] == []
        assert load_cifar10(tmp_path / "cache").x_train.shape == (35, 3, 32, 32)
        download(server, "", tmp_path / "cache")  # is there already
        assert Server.asked == [0]

    def test_goes_on_where_it_stopped(self, server, archive, tmp_path):
        Server.content, Server.limit = archive, len(archive) // 3
        sha256 = hashlib.sha256(archive).hexdigest()
        with pytest.raises(RunError, match="goes on where it stopped"):
            download(server, sha256, tmp_path)
        Server.limit = None
        download(server, sha256, tmp_path)
        assert Server.asked == [0, len(archive) // 3]

    def test_a_finished_download_is_not_fetched_again(self, server, archive, tmp_path):
        Server.content = archive
        Path(tmp_path, "cifar-10-python.tar.gz.part").write_bytes(archive)
        assert download(server, hashlib.sha256(archive).hexdigest(), tmp_path).is_dir()

    def test_another_archive_is_removed(self, server, archive, tmp_path):
        Server.content = archive + b"x"
        with pytest.raises(RunError, match="not the published archive"):
            download(server, hashlib.sha256(archive).hexdigest(), tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_no_answer(self, tmp_path):
        with pytest.raises(RunError, match="refused"):
            download("http://127.0.0.1:9/none", "", tmp_path)
