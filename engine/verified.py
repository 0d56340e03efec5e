"""Whose signatures this process has found valid: marks by the whole transaction hash.

The hash covers signature and signed bytes, so a mark is about exactly one record. The set is
bounded and forgets; what is forgotten is verified again. It lives in memory alone: a file could be
written by somebody else. Spec: spec/signatures.md.
"""

import secrets
import threading

import numpy as np
from numpy.typing import NDArray

from kernels import marks, memory
from kernels.host_accounts import key_words, read_only
from kernels.layout import U8, U64

MARKS_MAX = 2**21
"""Marks that are kept unless the opener says otherwise: 40 bytes each."""
SECRET_BYTES = 64


class VerifiedMarks:
    """A bounded set of transaction hashes; any thread may use it."""

    def __init__(self, marks_max: int = MARKS_MAX) -> None:
        """Make room for `marks_max` marks, rounded up to a power of two."""
        assert 1 <= marks_max <= 2**30, marks_max
        buckets = 1
        while buckets * marks.WAYS < marks_max:
            buckets *= 2
        self._tags: U64 = memory.zeros((buckets, marks.WAYS), np.uint64)
        self._kept: U64 = memory.zeros((buckets * marks.WAYS, 4), np.uint64)
        self._turns: U8 = memory.zeros(buckets, np.uint8)
        self._secret = read_only(np.frombuffer(secrets.token_bytes(SECRET_BYTES), np.uint64).copy())
        self._mutex = threading.Lock()

    @property
    def marks_max(self) -> int:
        """The most marks that are kept."""
        return len(self._kept)

    def take_memory(self) -> None:
        """Take the memory now: the first batch reaches for all of it, at random."""
        for table in (self._tags, self._kept):
            memory.take(table)

    def is_verified(self, hashes: U8) -> NDArray[np.bool_]:
        """Say for each of (n, 32) transaction hashes whether it is marked: (n,) bool."""
        found = np.zeros(len(hashes), np.uint8)
        if len(hashes):
            words = key_words(hashes)
            with self._mutex:
                marks.find_marks(self._tags, self._kept, self._secret, words, found, 0, len(hashes))
        return found.view(np.bool_)

    def mark(self, hashes: U8) -> None:
        """Mark (n, 32) transaction hashes whose signatures were found valid."""
        if len(hashes):
            words = key_words(hashes)
            with self._mutex:
                marks.put_marks(self._tags, self._kept, self._turns, self._secret, words)
