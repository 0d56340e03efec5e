"""The backend `gpu`: batches on a device, small ones and all that a device cannot do on the host.

A batch below the crossover costs more to launch than to compute, so it goes to the host. Hashes
stay on the device beside what was returned: receipts are made of them, and roots of those. See
`opening` for how one is made, `guard` for what happens when a device fails.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels import blake3
from kernels.backend import BackendName, DeviceSettings
from kernels.gpu import hashes as kernels
from kernels.gpu.arrays import DeviceArray
from kernels.gpu.columns import DeviceColumns, copy_columns
from kernels.gpu.device import Arena, Device
from kernels.gpu.failures import DeviceDiffers, DeviceFailed
from kernels.gpu.guard import Guard
from kernels.gpu.guarded import GuardedAccounts, is_equal
from kernels.gpu.mirror import LateTree, Mirror
from kernels.gpu.resident import DeviceAccounts
from kernels.gpu.signatures import GuardedSignatures, Verifier
from kernels.gpu.tree import TreeKeys, list_root
from kernels.gpu.uploads import Uploads
from kernels.host import HostBackend, new_secret
from kernels.host_accounts import HostAccounts, read_only
from kernels.layout import I32, U8, U64, Columns

Result = TypeVar("Result")

ROOT_KEYS_MAX: Final = 16
"""Kinds of trees over lists whose absent nodes are kept on the device; and keys of receipts."""


class GpuBackend:
    """Implements `kernels.backend.Backend` on a device, with a host's backend beside it."""

    def __init__(
        self,
        host: HostBackend,
        device: Device,
        settings: DeviceSettings,
        tell: Callable[[str], None],
        verifier: Verifier | None = None,
    ) -> None:
        """Own all of them; verifier None: signatures are verified on the host."""
        self.name: BackendName = "gpu"
        self.threads = host.threads
        self.device = device
        self._host = host
        self._settings = settings
        self._guard = Guard(device, check_blocks=settings.check_blocks, tell=tell)
        self._uploads = Uploads(device)
        self._arena = Arena(device)
        self._strays = Arena(device)
        """columns of batches that are no block's"""
        crossover = settings.crossover_signatures
        self._signatures = GuardedSignatures(
            self._guard, host, self._uploads, verifier, crossover=crossover
        )
        self._mirrors: list[Mirror] = []
        self._twins: dict[str, tuple[NDArray[Any], DeviceArray]] = {}
        self._root_keys = lru_cache(ROOT_KEYS_MAX)(self._make_root_keys)
        self._receipt_keys = lru_cache(ROOT_KEYS_MAX)(self._make_receipt_key)

    @property
    def degraded(self) -> str:
        """Return why the device is not used any more, or nothing."""
        return self._guard.lost

    @property
    def known_keys(self) -> tuple[int, int]:
        """See Backend.known_keys: the host's, a device decodes each key."""
        return self._host.known_keys

    def hash_messages(self, messages: U8) -> U8:
        """See Backend.hash_messages; messages of more than one chunk stay on the host."""
        is_known = messages.ndim == 2 and messages.dtype == np.uint8
        if not is_known or not 0 < messages.shape[1] <= blake3.CHUNK_BYTES:
            return self._host.hash_messages(messages)  # which refuses what it does not know
        return self._either(
            "messages",
            len(messages),
            lambda: self._hash_messages(messages),
            lambda: self._host.hash_messages(messages),
        )

    def hash_transactions(self, columns: Columns) -> U8:
        """See Backend.hash_transactions."""
        return self._either(
            "transactions",
            len(columns.kind),
            lambda: self._hash_transactions(columns),
            lambda: self._host.hash_transactions(columns),
        )

    def hash_receipts(self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes) -> U8:
        """See Backend.hash_receipts."""
        return self._either(
            "receipts",
            len(hashes),
            lambda: self._hash_receipts(hashes, statuses, kinds, fees, key),
            lambda: self._host.hash_receipts(hashes, statuses, kinds, fees, key),
        )

    def transactions_root(
        self, columns: Columns, node_key: bytes, absent: bytes
    ) -> tuple[U8, bytes]:
        """See Backend.transactions_root: the hashes leave while the tree over them is climbed."""
        return self._either(
            "transactions",
            len(columns.kind),
            lambda: self._transactions_root(columns, node_key, absent),
            lambda: self._host.transactions_root(columns, node_key, absent),
        )

    def receipts_root(
        self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes, node_key: bytes,
        absent: bytes,
    ) -> bytes:  # fmt: skip
        """See Backend.receipts_root: the leaves never leave."""
        given = (hashes, statuses, kinds, fees, key)
        return self._either(
            "receipts",
            len(hashes),
            lambda: self._receipts_root(*given, node_key, absent),
            lambda: self._host.receipts_root(*given, node_key, absent),
        )

    def prefetch(self, columns: Callable[[], Columns]) -> None:
        """See Backend.prefetch."""
        if self._guard.device is None:
            return
        made = columns()
        if len(made.kind) >= self._settings.crossover_transactions:
            try:
                self._uploads.prefetch(made)
            except DeviceFailed as error:
                self._guard.give_up(str(error))

    def list_root(self, leaves: U8, node_key: bytes, absent: bytes) -> bytes:
        """See Backend.list_root."""
        return self._either(
            "roots",
            len(leaves),
            lambda: self._list_root(leaves, node_key, absent),
            lambda: self._host.list_root(leaves, node_key, absent),
        )

    def verify_signatures(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """See Backend.verify_signatures."""
        return self._signatures.verify(public_keys, signatures, messages)

    def verify_transactions(self, columns: Columns, rows: I32, domain: bytes) -> U8:
        """See Backend.verify_transactions."""
        return self._signatures.verify_transactions(columns, rows, domain)

    def open_accounts(
        self,
        keys: U8,
        balances: U64,
        nonces: U64,
        *,
        leaf_key: bytes,
        node_key: bytes,
        capacity: int = 0,
    ) -> GuardedAccounts:
        """See Backend.open_accounts; without room on the device they are the host's alone."""
        secret = new_secret()
        tree = LateTree(lambda: self._host.new_tree(leaf_key, node_key))
        here: HostAccounts = self._host.open_on(
            tree, keys, balances, nonces, secret=secret, capacity=capacity
        )
        there = None
        if self._guard.device is not None:
            try:
                with self._guard.lock:
                    there = DeviceAccounts(
                        self.device, self._uploads, here.records, here.count, supply=here.supply,
                        secret=secret, leaf_key=leaf_key, node_key=node_key,
                    )  # fmt: skip
            except DeviceFailed as error:
                self._guard.give_up(str(error))
        mirror = Mirror(here, tree)
        self._mirrors.append(mirror)
        crossover = self._settings.crossover_transactions
        return GuardedAccounts(self._guard, mirror, there, crossover=crossover)

    def close(self) -> None:
        """See Backend.close."""
        for mirror in self._mirrors:
            mirror.close()
        self._signatures.close()
        self.device.close()
        self._host.close()

    # Parts

    def _either(
        self, kind: str, count: int, there: Callable[[], Result], here: Callable[[], Result]
    ) -> Result:
        """Compute a batch on the device or on the host, or on both where it is of the sample."""
        if self._guard.device is None or not count:
            return here()
        if count < self._settings.crossover_transactions:
            return here()
        try:
            with self._guard.lock:
                result = there()
            if self._guard.is_due(kind):
                expected = here()
                if not is_equal(result, expected):
                    raise DeviceDiffers(f"hashes of {kind} differ from the CPU's")
        except DeviceFailed as error:
            self._guard.give_up(str(error))
            result = here()
        return result

    def _digests(self, name: str, count: int) -> DeviceArray:
        return self._arena.take(name, (count, 8), np.uint32)

    def _return(self, name: str, digests: DeviceArray) -> U8:
        """Return digests on the host, and remember where they are on the device."""
        return self._remember(name, self.device.fetch(digests), digests)

    def _remember(self, name: str, rows: NDArray[Any], digests: DeviceArray) -> U8:
        host: U8 = read_only(rows.view(np.uint8))
        self._twins[name] = (host, digests)
        return host

    def _twin(self, name: str, array: NDArray[Any], dtype: Any) -> DeviceArray:
        """Return an array on the device; copied unless it was made there, or came with a block."""
        for host, there in self._twins.values():
            if host is array:
                return there
        known = self._uploads.twin(array)
        if known is not None:
            return known
        return self._arena.put(f"given.{name}", np.ascontiguousarray(array).view(dtype))

    def _hash_messages(self, messages: U8) -> U8:
        rows = self._twin("messages", np.ascontiguousarray(messages), np.uint8)
        out = self._digests("messages", len(messages))
        self.device.launch(kernels.hash_messages, len(messages), rows, out)
        return self._return("messages", out)

    def _columns(self, columns: Columns) -> DeviceColumns:
        """Return columns on the device; those of the present block are there."""
        found = self._uploads.find(columns)
        if found is None:
            found = copy_columns(self.device, self._strays, columns, self.device.copy_in)
        return found

    def _launch_transactions(self, columns: Columns) -> DeviceArray:
        there, count = self._columns(columns), len(columns.kind)
        out = self._digests("transactions", count)
        self.device.launch(kernels.hash_transactions, count, *there, out)
        return out

    def _hash_transactions(self, columns: Columns) -> U8:
        return self._return("transactions", self._launch_transactions(columns))

    def _transactions_root(
        self, columns: Columns, node_key: bytes, absent: bytes
    ) -> tuple[U8, bytes]:
        out = self._launch_transactions(columns)
        (rows,) = self.device.begin_fetch_beside(out)
        root = self._list_root_there(out, node_key, absent)  # waits for the rows, too
        return self._remember("transactions", rows, out), root

    def _launch_receipts(
        self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes
    ) -> DeviceArray:
        out = self._digests("receipts", len(hashes))
        self.device.launch(
            kernels.hash_receipts, len(hashes),
            self._twin("hashes", hashes, np.uint32), self._twin("statuses", statuses, np.uint8),
            self._twin("kinds", kinds, np.uint8), self._twin("fees", fees, np.uint64),
            self._receipt_keys(key), out,
        )  # fmt: skip
        return out

    def _hash_receipts(self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes) -> U8:
        return self._return("receipts", self._launch_receipts(hashes, statuses, kinds, fees, key))

    def _receipts_root(
        self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes, node_key: bytes,
        absent: bytes,
    ) -> bytes:  # fmt: skip
        out = self._launch_receipts(hashes, statuses, kinds, fees, key)
        return self._list_root_there(out, node_key, absent)

    def _make_receipt_key(self, key: bytes) -> DeviceArray:
        return self.device.put(blake3.key_words(key))

    def _make_root_keys(self, node_key: bytes, absent: bytes) -> TreeKeys:
        return TreeKeys(self.device, node_key=node_key, absent=absent)

    def _list_root(self, leaves: U8, node_key: bytes, absent: bytes) -> bytes:
        if leaves.ndim != 2 or leaves.shape[1] != blake3.DIGEST_BYTES or leaves.dtype != np.uint8:
            return self._host.list_root(leaves, node_key, absent)  # which refuses it
        return self._list_root_there(self._twin("leaves", leaves, np.uint32), node_key, absent)

    def _list_root_there(self, rows: DeviceArray, node_key: bytes, absent: bytes) -> bytes:
        keys = self._root_keys(node_key, absent)
        return list_root(self.device, self._arena, rows, len(rows), keys)
