"""How fast memory is read: a loop over far more than the caches hold, on as many threads as decode.

It is the bound of decoding, since every token reads every weight once. The loop is in C++, compiled when it is first
needed, with all that this processor can do.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import gguf
import numpy as np

from kit.models import BUILD

SOURCE = """
#include <cstddef>
#include <cstdint>

// Eight sums at once, so that no addition waits for the one before.
extern "C" uint64_t read_all(const uint64_t * words, size_t n) {
    uint64_t sums[64] = {};
    for (size_t i = 0; i + 64 <= n; i += 64) {
        for (size_t j = 0; j < 64; ++j) {
            sums[j] += words[i + j];
        }
    }
    uint64_t sum = 0;
    for (uint64_t each : sums) {
        sum += each;
    }
    return sum;
}
"""
BYTES = 512 * 2**20
PASSES = 8


@cache
def _library() -> ctypes.CDLL:
    folder = BUILD / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    source, library = folder / "read_loop.cpp", folder / "read_loop.so"
    if not library.exists() or source.read_text() != SOURCE:
        source.write_text(SOURCE)
        compiler = os.environ.get("CXX", "g++")
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.read_all.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    loaded.read_all.restype = ctypes.c_uint64
    return loaded


class ReadLoop:
    """The loop, with memory to read.

    Args:
        n_threads: Threads that read a part each.
    """

    def __init__(self, n_threads: int, n_bytes: int = BYTES) -> None:
        self._parts = [np.ones(n_bytes // 8 // n_threads, np.uint64) for _ in range(n_threads)]
        self._pool = ThreadPoolExecutor(n_threads)

    def bytes_per_second(self) -> float:
        """Return the rate of the fastest of some passes: the first one, on a processor that has rested, is slow."""
        return max(self._pass() for _ in range(PASSES))

    def _pass(self) -> float:
        start = time.perf_counter()
        sums = list(self._pool.map(self._read, self._parts))
        seconds = time.perf_counter() - start
        assert sums == [part.size // 64 * 64 for part in self._parts]
        return sum(part.nbytes for part in self._parts) / seconds

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()

    @staticmethod
    def _read(part: np.ndarray) -> int:
        return _library().read_all(part.ctypes.data, part.size)


def weight_bytes(model: Path) -> int:
    """Return the bytes of the weights that a token reads: all but the embedding, unless it is the output as well."""
    tensors = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(str(model)).tensors}
    tied = "output.weight" not in tensors
    return sum(n for name, n in tensors.items() if tied or name != "token_embd.weight")
