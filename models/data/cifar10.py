"""CIFAR-10 (Krizhevsky 2009), which may not be shipped: read from a folder, or fetched once from its home.

The batches are pickles, which can run code when they are read. So each file's SHA-256 is checked before a byte of it is
interpreted, and what reads it then knows lists, numbers, strings, and arrays of bytes, and refuses everything else.
"""

import hashlib
import io
import math
import os
import pickle
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from models.data import Array
from models.files import RunError, write_atomically

HOME = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
FOLDER = "cifar-10-batches-py"
TRAINING = {
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
}
TEST = {"test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32


class Cifar10(NamedTuple):
    """Colour images uint8 (N, 3, 32, 32): red, green, blue; labels uint8 (N,), which `CLASSES` names."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def load_cifar10(folder: str | Path | None = None) -> Cifar10:
    """50,000 examples to train on and 10,000 to test on, from the official Python batches.

    folder: where they are, or the folder that holds theirs; else the one that the environment variable
    TINYGRAD_SCRATCH_DATA names, else the user's cache, which `download` fills. RunError, with what to do, if they are not
    there, or are not the published files, byte for byte.
    """
    place = find(folder)
    x_train, y_train = zip(*(read_batch(place / name, sha256) for name, sha256 in TRAINING.items()), strict=True)
    x_test, y_test = zip(*(read_batch(place / name, sha256) for name, sha256 in TEST.items()), strict=True)
    return Cifar10(*map(np.concatenate, (x_train, y_train, x_test, y_test)))


def find(folder: str | Path | None = None) -> Path:
    """The folder of the batches; RunError if there is none."""
    roots = [Path(folder)] if folder else []
    if not folder and (named := os.environ.get("TINYGRAD_SCRATCH_DATA")):
        roots.append(Path(named))
    if not folder:
        roots.append(cache_folder())
    for root in roots:
        for place in (root, root / FOLDER, root / "cifar-10" / FOLDER):
            if (place / "test_batch").is_file():
                return place
    looked = ", ".join(map(str, roots))
    raise RunError(
        f"CIFAR-10 is not in {looked}: give --data-dir or set TINYGRAD_SCRATCH_DATA to the folder that holds {FOLDER}/, "
        "or fetch it with --download"
    )


def cache_folder() -> Path:
    """Where downloads are kept: in XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinygrad_scratch" / "data"


# -- reading -----------------------------------------------------------------------------------------------------------


def read_batch(path: Path, sha256: str) -> tuple[Array, Array]:
    """Images (N, 3, 32, 32) and labels (N,) of a batch. RunError unless the file has this SHA-256 and holds a batch."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RunError(f"{path}: not the published file: its SHA-256 is not {sha256}; nothing of it was read")
    return parse_batch(content, str(path))


def parse_batch(content: bytes, name: str) -> tuple[Array, Array]:
    """Images and labels in the bytes of a batch; RunError, and nothing run, for anything but dicts of plain values."""
    try:
        batch = _Reader(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = batch[b"data"].array, np.array(batch[b"labels"])
    except Exception as error:  # whatever a reader runs into in bytes that are no batch
        raise RunError(f"{name}: not a batch of CIFAR-10: {error!r}") from None
    good = (
        pixels.ndim == 2 and pixels.shape[1] == PIXELS and labels.shape == (len(pixels),) and labels.dtype.kind == "i"
    )
    if not good or not len(labels) or not 0 <= labels.min() <= labels.max() < len(CLASSES):
        raise RunError(f"{name}: not a batch of CIFAR-10: data {pixels.shape}, labels {labels.dtype}{labels.shape}")
    return pixels.reshape(-1, 3, 32, 32), labels.astype(np.uint8)


class _Pixels:
    """Stands for the ndarray in the pickle, and takes its state: bytes of that shape, or ValueError."""

    array: Array = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, _, _, raw = state
        if not isinstance(raw, bytes) or math.prod(shape) != len(raw):
            raise ValueError("an array whose bytes do not have its shape")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape)


class _Bytes:
    """Stands for the dtype in the pickle, which must be that of bytes."""

    def __init__(self, code: Any, *_: Any):
        if code not in (b"u1", "u1"):
            raise ValueError(f"an array of {code!r}")

    def __setstate__(self, state: Any) -> None:
        pass


def _array(*_: Any) -> _Pixels:
    return _Pixels()


class _Reader(pickle._Unpickler):
    """Instead of what a pickle names, its own stand-ins: no name leads out of this module.

    It is the reader that is written in Python, whose memory a few bytes of a pickle cannot fill.
    """

    known: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _array,
        ("numpy._core.multiarray", "_reconstruct"): _array,
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _Bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.known[module, name]


# -- fetching ----------------------------------------------------------------------------------------------------------


def download(url: str = HOME, sha256: str = ARCHIVE_SHA256, folder: Path | None = None) -> Path:
    """Fetch the archive into `folder` (default: the user's cache) unless the batches are there; returns theirs.

    A download that was interrupted goes on where it stopped. RunError if the address does not answer, or what it gives is
    not the published archive.
    """
    folder = folder or cache_folder()
    place = folder / FOLDER
    if all((place / name).is_file() for name in (*TRAINING, *TEST)):
        return place
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "cifar-10-python.tar.gz.part"
    try:
        _fetch(url, part)
    except (urllib.error.URLError, OSError) as error:
        raise RunError(f"{url}: {getattr(error, 'reason', error)}; the same command goes on where it stopped") from None
    with open(part, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        part.unlink()
        raise RunError(f"{url}: not the published archive: its SHA-256 is {found}; it was removed")
    unpack(part, place)
    part.unlink()
    return place


def _fetch(url: str, part: Path) -> None:
    """Append to `part` what it lacks."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to fetch
            return
        raise
    with answer, open(part, "ab" if answer.status == 206 else "wb") as stream:
        length = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=length, unit="B", unit_scale=True, desc="CIFAR-10", disable=None, leave=False) as bar:
            while piece := answer.read(1 << 18):
                stream.write(piece)
                bar.update(len(piece))
        if length and stream.tell() < length:
            raise OSError("the connection was closed before the end")


def unpack(archive: Path, place: Path) -> None:
    """Write the batches in the archive into `place`, under names of our own choosing, and nothing else of it."""
    place.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            for name in (*TRAINING, *TEST):
                member = tar.extractfile(f"{FOLDER}/{name}")
                if member is None:
                    raise RunError(f"{archive}: {name} is not a plain file")
                write_atomically(place / name, member.read())
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise RunError(f"{archive}: {error}") from None
