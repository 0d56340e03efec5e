"""How fast the store is on this disk: `python -m tests.engine.store.figures PART DIR [COUNT]`.

PART is `blocks` (COUNT blocks of 100k transactions), `index` (COUNT transactions) or `load` (COUNT
accounts). Nothing here is a test: figures go to whoever asked, with the raw disk beside them.
"""

import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from engine.genesis import genesis_hash, make_genesis
from engine.header import Header
from engine.state import State
from engine.store import indexes
from engine.store.config import StoreConfig
from engine.store.runs import SortedRuns
from engine.store.store import Store
from engine.store.values import FinalBlock
from engine.types import Epoch, Hash32, Height, PublicKey, TimestampMs
from kernels.backend import open_backend
from kernels.layout import U8, U32, Changes
from runtime.keypair import KeyPair
from tests.engine.store.chains import PARAMETERS

TRANSACTIONS = 100_000
PAYLOAD_BYTES = 18_700_000
CHANGED = 180_000
BATCH = 200_000
CONFIG = StoreConfig(free_bytes_min=0, snapshot_every=10**9)


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def spread(name: str, ns: list[int]) -> None:
    """Print median, least and greatest of durations."""
    parts = [f"{value // 1000:,}" for value in (statistics.median_low(ns), min(ns), max(ns))]
    say(f"{name}: median {parts[0]} us, least {parts[1]}, greatest {parts[2]} ({len(ns)} times)")


def make_store(home: Path, rng: np.random.Generator, accounts: int) -> Store:
    """Make a home of a chain with random accounts."""
    genesis = make_genesis(
        chain_id=7,
        timestamp_ms=0,
        account_minimum=5,
        fee_minimum=1,
        parameters=PARAMETERS,
        validators=[(KeyPair.of(bytes(32)).public_key, 3)],
        account_keys=rng.integers(0, 256, (accounts, 32), dtype=np.uint8),
        account_balances=np.full(accounts, 10**9, np.uint64),
    )
    Store.create(home, genesis)
    return Store.open(home, CONFIG, genesis_hash(genesis))


def header_of(parent: bytes, height: int, state_hash: bytes) -> Header:
    """Return a header that carries what the store looks at."""
    zero = Hash32(bytes(32))
    return Header(
        chain_id=7, epoch=Epoch(0), height=Height(height), parent_hash=Hash32(parent),
        timestamp_ms=TimestampMs(height), proposer=PublicKey(zero), fee_recipient=PublicKey(zero),
        validator_set_id=zero, payload_commitment=zero, payload_bytes=0, transaction_count=0,
        transactions_root=zero, state_hash=Hash32(state_hash), receipts_hash=zero,
    )  # fmt: skip


def random_changes(rng: np.random.Generator, state: State, nonce: int) -> Changes:
    """Return a write set as a block of 100k transfers over random accounts leaves it."""
    count = state.count
    drawn = np.unique(rng.integers(0, count, min(CHANGED + CHANGED // 8, 2 * count)))
    slots: U32 = rng.permutation(drawn)[:CHANGED].astype(np.uint32)
    slots.sort()
    _, before, nonces = state.accounts.read(slots)
    # Units move between neighbours, so that the sum stays.
    moved = np.zeros(len(slots), np.int64)
    even = len(slots) // 2 * 2
    amounts = rng.integers(0, 1_000, even // 2)
    moved[:even:2], moved[1:even:2] = -amounts, amounts
    after = (before.astype(np.int64) + moved).astype(np.uint64)
    return Changes(
        slots=slots, balances_before=before, balances_after=after, nonces_before=nonces,
        nonces_after=np.full(len(slots), nonce, np.uint64),
        created_keys=np.empty((0, 32), np.uint8), count_before=count, count_after=count,
    )  # fmt: skip


def raw_disk(folder: Path, count: int) -> None:
    """Print what this disk does with appended payloads of the same size."""
    payload = os.urandom(PAYLOAD_BYTES)
    file = os.open(folder / "raw", os.O_CREAT | os.O_RDWR)
    took = []
    for _ in range(count):
        start = time.perf_counter_ns()
        os.write(file, payload)
        os.fdatasync(file)
        took.append(time.perf_counter_ns() - start)
    os.close(file)
    (folder / "raw").unlink()
    spread(f"raw append of {PAYLOAD_BYTES} bytes", took)


def blocks(folder: Path, count: int) -> None:
    """Measure appends and finalizations of large blocks, with the raw disk between them."""
    rng = np.random.default_rng(1)
    backend = open_backend("cpu", 2)
    raw_disk(folder, count)
    with make_store(folder / "home", rng, 1_000_000) as store:
        genesis = store.genesis
        state = State(genesis.account_keys, genesis.account_balances, backend=backend)
        payload = os.urandom(PAYLOAD_BYTES)
        appends, finalizations, parent = [], [], store.genesis_hash
        statuses: U8 = np.zeros(TRANSACTIONS, np.uint8)
        for height in range(1, count + 1):
            changes = random_changes(rng, state, height)
            header = header_of(parent, height, bytes(32))
            name = header.block_hash()
            start = time.perf_counter_ns()
            store.begin_append(name, header.encode(), payload).wait()
            appends.append(time.perf_counter_ns() - start)
            start = time.perf_counter_ns()
            block = FinalBlock(block_hash=name, changes=changes, statuses=statuses)
            store.finalize([block], name)
            finalizations.append(time.perf_counter_ns() - start)
            parent = name
        spread("begin_append, durable", appends)
        spread(f"finalize, {CHANGED} changed accounts", finalizations)
        use = store.disk_use()
        say(f"history bytes per block: {use.history // count}, rows: {use.rows}")
    raw_disk(folder, count)
    backend.close()


def index(folder: Path, count: int) -> None:
    """Measure the index of transaction hashes and of parties, merges in the background."""
    rng = np.random.default_rng(2)
    runs, parties = (SortedRuns(folder / name, bytes(32)) for name in ("hashes", "parties"))
    known: list[tuple[bytes, int, int]] = []
    adds, party_adds, finds, most = [], [], [], 0
    for height in range(1, count // BATCH + 1):
        hashes = rng.integers(0, 256, (BATCH, 32), dtype=np.uint8)
        senders, recipients = rng.integers(0, 10**6, (2, BATCH)).astype(np.uint32)
        known += [(hashes[i].tobytes(), height, int(i)) for i in rng.integers(0, BATCH, 40)]
        start = time.perf_counter_ns()
        indexes.index_hashes(runs, height, hashes)
        adds.append(time.perf_counter_ns() - start)
        start = time.perf_counter_ns()
        indexes.index_parties(parties, height, senders, recipients, np.zeros(BATCH, np.uint8))
        party_adds.append(time.perf_counter_ns() - start)
        for item in (runs, parties):
            item.start_merge()
        most = max(most, len(runs.runs))
    for item in (runs, parties):
        item.finish_merge()
        while item.start_merge():
            item.finish_merge()
    for value, height, position in known:
        start = time.perf_counter_ns()
        found = indexes.find_hash(runs, value)
        finds.append(time.perf_counter_ns() - start)
        assert (height, position) in found
    spread(f"enter {BATCH} hashes", adds)
    spread(f"enter {BATCH} pairs of parties", party_adds)
    spread(f"find one of {count} hashes", finds)
    pages = []
    for slot in rng.integers(0, 10**6, 1_000).tolist():
        start = time.perf_counter_ns()
        indexes.account_page(parties, slot, None, 100)
        pages.append(time.perf_counter_ns() - start)
    spread("newest 100 of an account", pages)
    say(f"runs: {len(runs.runs)} at the end, {most} at most; bytes {runs.disk_bytes}")
    for item in (runs, parties):
        item.close()
    start = time.perf_counter_ns()
    SortedRuns(folder / "hashes", bytes(32)).close()
    say(f"open and check the runs of hashes: {(time.perf_counter_ns() - start) // 10**6} ms")


def load(folder: Path, count: int) -> None:
    """Measure a snapshot in its process, and a start from it with 20 deltas behind it."""
    rng = np.random.default_rng(3)
    backend = open_backend("cpu", 2)
    with make_store(folder / "home", rng, count) as store:
        genesis = store.genesis
        state = State(genesis.account_keys, genesis.account_balances, backend=backend)
        parent = store.genesis_hash
        for height in range(1, 31):
            changes = random_changes(rng, state, height)
            state.redo([changes])
            header = header_of(parent, height, state.state_hash())
            parent = header.block_hash()
            store.begin_append(parent, header.encode(), b"").wait()
            statuses: U8 = np.zeros(TRANSACTIONS, np.uint8)
            block = FinalBlock(block_hash=parent, changes=changes, statuses=statuses)
            store.finalize([block], parent)
            if height == 10:
                start = time.perf_counter_ns()
                store.upkeep.start_snapshot(store.finalized)
                assert store.upkeep.collect_snapshot(is_waiting=True), store.take_notices()
                say(f"snapshot: {(time.perf_counter_ns() - start) // 10**6} ms, another process")
    del state
    start = time.perf_counter_ns()
    with Store.open(folder / "home", CONFIG) as store:
        opened = time.perf_counter_ns()
        loaded = store.load_state(backend)
        done = time.perf_counter_ns()
        assert loaded.base_height == 10
        assert store.take_notices() == []
    say(
        f"{count} accounts, 20 deltas: open {(opened - start) // 10**6} ms, "
        f"state {(done - opened) // 10**6} ms"
    )
    backend.close()


def main(part: str, place: str, count: int) -> int:
    """Measure one part in a folder that is removed afterwards."""
    folder = Path(place) / "figures"
    folder.mkdir()
    try:
        if part == "index":
            for name in ("hashes", "parties"):
                (folder / name).mkdir()
        {"blocks": blocks, "index": index, "load": load}[part](folder, count)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
