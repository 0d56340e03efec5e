"""The contract of a backend, and the door through which one is opened.

A backend offers batch hashing, signature verification and resident accounts. `serial` runs scalar
bodies one item at a time on one thread: it is the arm that others are compared with, and the one
that confirms a refusal. `cpu` runs vector forms over threads. `gpu` keeps state on a device.
All give the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from kernels.layout import I32, U8, U32, U64, Changes, Columns, Rules, Walk

BackendName = Literal["serial", "cpu", "gpu"]


class DeviceUnavailable(Exception):
    """A device was asked for and there is none that this program can use."""


CROSSOVER_TRANSACTIONS = 16_384
"""Below, launches and copies cost more than the work; `doctor --device` measures it.

What a block of 10,000 costs the host beside a device, about 3 ms, is what two cores take for all of
it (bench/results/NOTES.md).
"""
CROSSOVER_SIGNATURES = 512
KNOWN_KEYS = 2**21
"""Of a node: 64 MiB, taken as keys come."""
KNOWN_KEYS_MAX = 2**27
CHECK_BLOCKS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """How a device is used; nothing of it shows in a result."""

    crossover_transactions: int = CROSSOVER_TRANSACTIONS
    """blocks and batches of fewer are executed and hashed on the host"""
    crossover_signatures: int = CROSSOVER_SIGNATURES
    """batches of fewer are verified on the host"""
    check_blocks: int = CHECK_BLOCKS
    """every so many blocks one is computed on the host as well and compared; 0: none"""
    memory_bytes_max: int | None = None
    """of device memory; None: most of what is free when it is opened"""
    is_simulator_allowed: bool = False
    """for tests: takes Numba's simulator for a device"""


class Accounts(Protocol):
    """Resident accounts; `host_accounts.HostAccounts` says what each method does."""

    supply: int
    """Sum of all balances, base units."""

    @property
    def count(self) -> int:
        """Accounts that exist; slots are [0, count)."""

    @property
    def records(self) -> U64:
        """(capacity, 8) uint64, on the host: the records; all zero from `count` on."""

    @property
    def resident_bytes(self) -> int:
        """Memory of all arrays, on the host and on a device."""

    def lookup(self, keys: U8) -> U32:
        """Return the slots of (m, 32) keys, NO_SLOT for those without."""

    def find_parties(self, columns: Columns, lane_offsets: I32) -> tuple[U32, U32]:
        """Return the slots of each lane's sender and of each recipient."""

    def walk(
        self,
        columns: Columns,
        lane_offsets: I32,
        sender_slots: U32,
        recipient_slots: U32,
        rules: Rules,
    ) -> Walk:
        """Execute the lanes without writing anything.

        What `settle` alone reads may stay on a device: then the lanes' arrays are empty.
        """

    def settle(
        self,
        columns: Columns,
        lane_offsets: I32,
        sender_slots: U32,
        recipient_slots: U32,
        walk: Walk,
        fee_recipient: bytes,
        rules: Rules,
    ) -> Changes | None:
        """Write what a walk came to; None, and nothing is changed, without room for accounts."""

    def update_tree(self, changes: Changes) -> None:
        """Bring the tree to the state after `changes`."""

    def update_tree_slots(self, slots: U32, count_before: int, count_after: int) -> None:
        """Hash again what lies above `slots`."""

    def root(self) -> bytes:
        """Return the tree's root."""

    def proof(self, slot: int) -> tuple[bytes, list[bytes]]:
        """Return the leaf that holds a slot, and its siblings up to the root."""

    def undo(self, changes: Changes) -> None:
        """Go back to the state before `changes`."""

    def redo(self, changes: Changes) -> None:
        """Go forward to the state after `changes`."""

    def read(self, slots: U32) -> tuple[U8, U64, U64]:
        """Return keys, balances and nonces of (m,) slots."""


class Backend(Protocol):
    """Batch kernels over C-contiguous arrays; read-only arrays are accepted everywhere."""

    name: BackendName
    threads: int

    @property
    def degraded(self) -> str:
        """Return why this backend does not do what it is named for any more, or nothing."""

    @property
    def known_keys(self) -> tuple[int, int]:
        """Return how many keys of batches of signatures were known, and how many were decoded."""

    def hash_messages(self, messages: U8) -> U8:
        """Return the plain BLAKE3 of each row. messages: (n, m >= 0) uint8 -> (n, 32) uint8."""

    def hash_transactions(self, columns: Columns) -> U8:
        """Return the transaction hash of each row, (n, 32) uint8 (spec/transaction.md#hash)."""

    def hash_receipts(self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes) -> U8:
        """Return receipt leaves under `key`, (n, 32) uint8 (spec/receipts.md)."""

    def transactions_root(
        self, columns: Columns, node_key: bytes, absent: bytes
    ) -> tuple[U8, bytes]:
        """Return `hash_transactions` and the `list_root` over them (spec/payload.md)."""

    def receipts_root(
        self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes, node_key: bytes,
        absent: bytes,
    ) -> bytes:  # fmt: skip
        """Return the `list_root` over `hash_receipts`, for whom the leaves are of no use."""

    def prefetch(self, columns: Callable[[], Columns]) -> None:
        """Begin to bring the block that is executed next to where that happens; on any thread.

        columns: called if anything is to be brought; a view of bytes that do not change. What is
        executed in the end may be another block; whatever fails here is noticed there.
        """

    def list_root(self, leaves: U8, node_key: bytes, absent: bytes) -> bytes:
        """Return the Merkle root of (n, 32) uint8 leaves (spec/README.md#merkle-trees)."""

    def verify_signatures(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """Judge each row by spec/signatures.md#verdict; `serial` asks libsodium alone.

        public_keys: (n, 32), signatures: (n, 64), messages: (n, m) uint8 -> (n,) bool.
        """

    def verify_transactions(self, columns: Columns, rows: I32, domain: bytes) -> U8:
        """Judge the signatures of transactions rows, (m,) int32, ascending -> (m,) bool.

        domain: 32 bytes, of the chain. As `verify_signatures` does of what they sign
        (spec/transaction.md#what-is-signed), of which a device makes its own copy.
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
    ) -> Accounts:
        """Make accounts resident. keys: (n, 32) uint8, balances and nonces: (n,) uint64."""

    def close(self) -> None:
        """Give threads and memory back."""


def tell_nobody(why: str) -> None:
    """Hear that a device was given up, where `Backend.degraded` is read instead."""


def open_backend(
    name: BackendName,
    threads: int | None = None,
    *,
    known_keys: int = 0,
    device: DeviceSettings | None = None,
    tell: Callable[[str], None] = tell_nobody,
) -> Backend:
    """Open a backend by name; `threads` None means all cores (`serial` always runs one).

    known_keys: of how many public keys the host keeps what saves work when they come again, 0 to
    2^27, 32 bytes each; `serial` keeps nothing. device: how "gpu" uses its device; tell: is told,
    on any thread, why it was given up.

    Raises DeviceUnavailable for "gpu" where no device can be used, ValueError for other names, and
    what `kernels.signatures` does where no path for signatures can be trusted or run.
    """
    from kernels.host import HostBackend  # compiles kernels: only when a backend is wanted

    if name == "serial":
        return HostBackend("serial", 1)
    if name == "cpu":
        return HostBackend("cpu", threads, known_keys)
    if name == "gpu":
        from kernels.gpu.opening import open_gpu  # looks for a driver: only when a device is wanted

        return open_gpu(device or DeviceSettings(), threads, known_keys, tell)
    raise ValueError(f"no backend {name!r}: choose serial, cpu or gpu")
