"""The state of a training, written while the training goes on: it is three times the LoRA in full precision."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from easyphoto.files import write_parts
from easyphoto.store.lora_file import Array

_ALIGNED = 8
_NAMES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64"}


class StateWriter:
    """Writes states one after the other; the one before is whole on the disk until the next one is."""

    def __init__(self, path: Path, lent: bool) -> None:
        """Args: where it lies; whether the arrays it is given go on changing, so that they must be copied first."""
        self._path, self._lent = path, lent
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._under_way: Future[None] | None = None

    def write(self, state: Mapping[str, Array], before: Callable[[], object] = lambda: None) -> None:
        """Begin to write.

        Args:
            state: What is written.
            before: Done first, in the same thread: what must be on the disk before the state is.

        Raises:
            StorageError: The state before this one could not be written; or whatever else went wrong there.
        """
        self.wait()
        own = {key: np.array(array) if self._lent else array for key, array in state.items()}

        def work() -> None:
            before()
            write_parts(self._path, parts(own))

        self._under_way = self._pool.submit(work)

    def wait(self) -> None:
        """Wait until what was begun is on the disk.

        Raises:
            StorageError: It could not be written.
        """
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def drop(self) -> None:
        """The training is over: the state is of no use any more."""
        self.wait()
        self._path.unlink(missing_ok=True)


def parts(tensors: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, header first; arrays are not copied. Widest numbers first, so that all are aligned."""
    arrays = {key: np.asarray(array, order="C") for key, array in tensors.items()}
    order = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
    entries, end = {}, 0
    for key in order:
        array = arrays[key]
        begin, end = end, end + array.nbytes
        entries[key] = {"dtype": _NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % _ALIGNED)
    yield len(header).to_bytes(8, "little") + header
    for key in order:
        if arrays[key].nbytes:
            yield arrays[key].reshape(-1).data.cast("B")
