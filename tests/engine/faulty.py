"""A vectorised backend that lies on demand: everything else is the real one's."""

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.columns import signed_messages, take
from kernels.backend import Backend, open_backend
from kernels.layout import U8


class FaultyBackend:
    """The `cpu` backend with faults that a test switches on by name."""

    def __init__(self) -> None:
        """Open the real one; it is honest until told otherwise."""
        self._real: Backend = open_backend("cpu", 2)
        self.name = self._real.name
        self.threads = self._real.threads
        self.degraded = self._real.degraded
        self.known_keys = self._real.known_keys
        self.faults: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Hand everything through that has no fault here."""
        return getattr(self._real, name)  # type: ignore[no-any-return]  # methods of the protocol

    def hash_receipts(self, *arguments: Any) -> U8:
        """Flip one bit of one leaf under the fault `receipts`."""
        leaves = self._real.hash_receipts(*arguments)
        if "receipts" in self.faults and len(leaves):
            leaves[len(leaves) // 2, 7] ^= np.uint8(16)
        return leaves

    def receipts_root(self, *arguments: Any) -> bytes:
        """Commit to leaves under the same fault."""
        *given, node_key, absent = arguments
        return self._real.list_root(self.hash_receipts(*given), node_key, absent)

    def transactions_root(self, columns: Any, node_key: bytes, absent: bytes) -> tuple[U8, bytes]:
        """Commit to hashes under the same fault."""
        hashes = self.hash_transactions(columns)
        return hashes, self._real.list_root(hashes, node_key, absent)

    def hash_transactions(self, columns: Any) -> U8:
        """Flip one bit of one hash under the fault `hashes`."""
        hashes = self._real.hash_transactions(columns)
        if "hashes" in self.faults and len(hashes):
            hashes[0, 0] ^= np.uint8(1)
        return hashes

    def verify_transactions(self, columns: Any, rows: Any, domain: bytes) -> U8:
        """Judge under the same faults."""
        chosen = take(columns, rows)
        messages = signed_messages(chosen, domain)
        return self.verify_signatures(chosen.sender, chosen.signature, messages)

    def verify_signatures(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """Refuse the first row under `refuse`, accept all under `accept`."""
        verdicts = self._real.verify_signatures(public_keys, signatures, messages).copy()
        if "refuse" in self.faults and len(verdicts):
            verdicts[0] = False
        if "accept" in self.faults:
            verdicts[:] = True
        return verdicts
