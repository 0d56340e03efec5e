"""The contract of a backend, and the door through which one is opened.

A backend offers batch hashing, signature verification and resident accounts. `serial` runs scalar
bodies one item at a time on one thread: it is the arm that others are compared with, and the one
that confirms a refusal. `cpu` runs vector forms over threads. `gpu` keeps state on a device.
All give the same bits.
"""

from typing import Literal, Protocol

from kernels.host_accounts import HostAccounts
from kernels.layout import U8, U64, Columns

BackendName = Literal["serial", "cpu", "gpu"]


class DeviceUnavailable(Exception):
    """A device was asked for and there is none that this program can use."""


class Backend(Protocol):
    """Batch kernels over C-contiguous arrays; read-only arrays are accepted everywhere."""

    name: BackendName
    threads: int

    def hash_messages(self, messages: U8) -> U8:
        """Return the plain BLAKE3 of each row. messages: (n, m >= 0) uint8 -> (n, 32) uint8."""

    def hash_transactions(self, columns: Columns) -> U8:
        """Return the transaction hash of each row, (n, 32) uint8 (spec/transaction.md#hash)."""

    def hash_receipts(self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes) -> U8:
        """Return receipt leaves under `key`, (n, 32) uint8 (spec/receipts.md)."""

    def list_root(self, leaves: U8, node_key: bytes, absent: bytes) -> bytes:
        """Return the Merkle root of (n, 32) uint8 leaves (spec/README.md#merkle-trees)."""

    def verify_signatures(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """Judge each row by spec/signatures.md#verdict; `serial` asks libsodium alone.

        public_keys: (n, 32), signatures: (n, 64), messages: (n, m) uint8 -> (n,) bool.
        """

    def open_accounts(
        self,
        keys: U8,
        balances: U64,
        nonces: U64,
        *,
        leaf_key: bytes,
        node_key: bytes,
        capacity: int = 0,
    ) -> HostAccounts:
        """Make accounts resident. keys: (n, 32) uint8, balances and nonces: (n,) uint64."""

    def close(self) -> None:
        """Give threads and memory back."""


def open_backend(name: BackendName, threads: int | None = None) -> Backend:
    """Open a backend by name; `threads` None means all cores (`serial` always runs one).

    Raises DeviceUnavailable for "gpu" where no device can be used, ValueError for other names, and
    what `kernels.signatures` does where no path for signatures can be trusted or run.
    """
    from kernels.host import HostBackend  # compiles kernels: only when a backend is wanted

    if name == "serial":
        return HostBackend("serial", 1)
    if name == "cpu":
        return HostBackend("cpu", threads)
    if name == "gpu":
        raise DeviceUnavailable(
            "no GPU backend in this version: it runs on CPUs only; use the backend 'cpu'"
        )
    raise ValueError(f"no backend {name!r}: choose serial, cpu or gpu")
