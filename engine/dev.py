"""A chain of one node that finalizes its own blocks: for people who write applications.

Its accounts are rich and worth nothing: their keys follow from their numbers, so that everybody has
the same. The executor is the real one, with store, pages and queries; only consensus is replaced by
a loop that builds a block, judges it, and makes it final at once. The chain lives in a folder for a
while, and in one file if it shall outlive the process. The disk that it takes is bounded.
"""

import os
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.config import Settings
from engine.constants import SUPPLY_MAX, derive_key
from engine.genesis import Genesis, Parameters, make_genesis, validator_set_id
from engine.header import Header
from engine.node import Ready
from engine.service import Service
from engine.store.store import Store
from engine.types import ZERO_HASH, Epoch, Hash32, Height, PublicKey, TimestampMs
from engine.writer import seconds
from engine_api.types import (
    Attributes,
    EngineApiError,
    ErrorCode,
    Limits,
    PayloadRequest,
    Verdict,
)
from runtime.durable import whole_file
from runtime.errors import ExplainedError
from runtime.keypair import KeyPair
from runtime.keystore import KeyEntry, Keystore
from runtime.settings import Config

CHAIN_ID = 31_337
ACCOUNTS_MAX = 10_000
KEYS_SHOWN_MAX = 20
"""Accounts whose keys are stored for a wallet, and printed."""
BALANCE = 10**5 * 10**9
"""Of each account, in base units: a hundred thousand whole ones."""
ACCOUNT_MINIMUM = 1_000
FEE_MINIMUM = 1_000
SEED_CONTEXT = "tos dev account v1"
KEEP_BLOCKS = 4_096
DISK_BYTES_MAX = 2**32
SNAPSHOT_EVERY = 1_024
WAIT_MS = 200
"""How long one call waits for work, so that the loop ends soon after it is told to."""
PART = ".part"
"""behind the name of a state while it is written"""
FULL_PAUSE_MS = 1_000
"""Before the next try where the disk has no room for a block."""
STATE_MEMBERS_MAX = 100_000
STATE_BYTES_MAX = 2 * DISK_BYTES_MAX
assert ACCOUNTS_MAX * BALANCE <= SUPPLY_MAX


class DevError(ExplainedError):
    """A state that a development chain cannot go on from. Codes begin with `dev.`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When blocks are made."""

    block_ms: int
    is_on_demand: bool
    """only when a transaction waits, and then at once"""


def dev_key(number: int) -> KeyPair:
    """Return the key of an account; everybody can compute it."""
    return KeyPair.of(derive_key(SEED_CONTEXT, number.to_bytes(8, "little")))


def store_dev_keys(keystore: Keystore, accounts: int) -> list[KeyEntry]:
    """Store the keys of the first KEYS_SHOWN_MAX of so many accounts, unsealed; return them."""
    return [
        keystore.add(f"dev{number}", dev_key(number).seed, None)
        for number in range(min(KEYS_SHOWN_MAX, accounts))
    ]


def dev_genesis(accounts: int, timestamp_ms: int) -> Genesis:
    """Return a chain with so many rich accounts and one validator that never votes."""
    assert 1 <= accounts <= ACCOUNTS_MAX, accounts
    keys = b"".join(dev_key(number).public_key for number in range(accounts))
    return make_genesis(
        chain_id=CHAIN_ID,
        timestamp_ms=timestamp_ms,
        account_minimum=ACCOUNT_MINIMUM,
        fee_minimum=FEE_MINIMUM,
        parameters=Parameters(
            heights_per_epoch=2**32 - 1,
            delta_ms=100,
            execute_max_ms=1_000,
            transfer_max_ms=1_000,
            retransmit_interval_ms=1_000,
            evidence_window_epochs=1,
        ),
        validators=[(dev_key(0).public_key, 1)],
        account_keys=np.frombuffer(keys, np.uint8).reshape(-1, 32),
        account_balances=np.full(accounts, BALANCE, np.uint64),
    )


def dev_config(query_address: str, log_level: str) -> Config[Settings]:
    """Return the settings of a development node: no pages, a bounded disk."""
    settings = Settings(
        http_address="",
        query_address=query_address,
        keep_blocks=KEEP_BLOCKS,
        snapshot_every=SNAPSHOT_EVERY,
        max_disk_bytes=DISK_BYTES_MAX,
        log_level=log_level,  # type: ignore[arg-type]  # one of the command line's choices
    )
    return Config(settings=settings, origins={})


class Finalizer:
    """Makes every block of a chain and finalizes it at once, on a thread of its own."""

    def __init__(
        self,
        ready: Ready,
        pace: Pace,
        *,
        tell: Callable[[str], None],
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Go on from where the service stands; `start` begins. tell: why there are no blocks."""
        self._tell = tell
        self._service: Service = ready.service
        self._genesis = ready.store.genesis
        self._pace = pace
        self._clock_ms = clock_ms
        standing = ready.service.views.standing.blocks["head"]
        self._parent_hash, self._height = standing.block_hash, standing.height
        self._time_ms = standing.timestamp_ms
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="finalizer")

    def start(self) -> None:
        """Begin to make blocks."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the block that is being made."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        # What a process that was killed has left above the finalized block becomes final first.
        if self._height:
            name = self._parent_hash
            self._service.forkchoice_updated(name, name, name)
        is_told = False
        while not self._is_over.is_set():
            if not self._pace.is_on_demand:
                self._is_over.wait(seconds(self._pace.block_ms))
            try:
                self._make_block()
                is_told = False
            except EngineApiError as error:
                if self._service.failure or self._is_over.is_set():
                    return
                if error.code is not ErrorCode.RESOURCE_EXHAUSTED:
                    raise
                if not is_told:  # nothing was written, and it goes on when there is room
                    self._tell(error.sentence)
                    is_told = True
                self._is_over.wait(seconds(FULL_PAUSE_MS))

    def _make_block(self) -> None:
        """Build, judge and finalize one block; on demand only if there is a transaction."""
        timestamp_ms = max(self._time_ms + 1, self._clock_ms())
        proposer = PublicKey(dev_key(0).public_key)
        limits = self._genesis.parameters.limits
        request = PayloadRequest(
            parent_hash=self._parent_hash,
            height=self._height + 1,
            attributes=Attributes(timestamp_ms=timestamp_ms, fee_recipient=proposer),
            limits=Limits(
                bytes=limits.bytes, transactions=limits.transactions, objects=limits.objects
            ),
            wait_ms=WAIT_MS if self._pace.is_on_demand else 0,
        )
        built = self._service.get_payload(request).built
        assert built is not None, "the parent is the block that was made last"
        if self._pace.is_on_demand and not built.transaction_count:
            return
        header = Header(
            chain_id=self._genesis.chain_id,
            epoch=Epoch(0),
            height=Height(request.height),
            parent_hash=Hash32(self._parent_hash),
            timestamp_ms=TimestampMs(timestamp_ms),
            proposer=proposer,
            fee_recipient=proposer,
            validator_set_id=validator_set_id(self._genesis.validators),
            payload_commitment=Hash32(built.payload_commitment),
            payload_bytes=len(built.payload),
            transaction_count=built.transaction_count,
            transactions_root=Hash32(built.transactions_root),
            state_hash=Hash32(built.state_hash),
            receipts_hash=Hash32(built.receipts_hash),
            next_validator_set_hash=ZERO_HASH,
        )
        answer = self._service.new_payload(header.encode(), None)
        assert answer.verdict is Verdict.VALID, answer.detail
        name = header.block_hash()
        self._service.forkchoice_updated(name, name, name)
        self._parent_hash, self._height, self._time_ms = name, request.height, timestamp_ms


def open_home(folder: Path, state: Path | None, accounts: int, timestamp_ms: int) -> None:
    """Make the home of a development chain, from a state file where there is one.

    Raises DevError for a state that cannot be read, or could not be written at the end.
    """
    if state is not None:
        _check_writable(state)
    if state is None or not state.exists():
        Store.create(folder, dev_genesis(accounts, timestamp_ms))
        return
    if not state.is_file():
        raise _bad_state(state, "it is no file")
    try:
        with tarfile.open(state, "r:") as archive:
            members, size = [], 0
            for member in archive:
                members.append(member)
                size += member.size
                if len(members) > STATE_MEMBERS_MAX or size > STATE_BYTES_MAX:
                    raise _bad_state(state, "it is larger than any state of such a chain")
            archive.extractall(folder, members, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise _bad_state(state, str(error)) from error


def _check_writable(state: Path) -> None:
    """Raise DevError unless the state can be written: at the end it would be too late."""
    part = _part(state)
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise DevError(
            "dev.state_unwritable",
            what="the chain could not be kept in this file",
            where=str(part),
            why=error.strerror or str(error),
            what_to_do="name a file in a folder that exists and that this user may write to",
        ) from error


def _part(state: Path) -> Path:
    return state.with_name(f"{state.name}{PART}")


def save_home(folder: Path, state: Path) -> None:
    """Put a home that is closed into one file, whole or not at all. Raises OSError."""
    with (
        whole_file(state, suffix=PART) as number,
        os.fdopen(os.dup(number), "wb") as file,
        tarfile.open(fileobj=file, mode="w") as archive,
    ):
        for path in sorted(folder.iterdir()):
            if path.name != "run":
                archive.add(path, path.name)


def _bad_state(state: Path, why: str) -> DevError:
    return DevError(
        "dev.state",
        what="the chain cannot be brought back from its file",
        where=str(state),
        why=why,
        what_to_do="name another file with --state, or move this one away to begin anew",
    )
