"""What a load consists of: signed transfers in batches, made once and kept on disk.

Senders are the accounts of a development chain, whose keys everybody knows. Their nonces go on from
those at the node's head, so the kept file of a chain that has moved on is not used again: its name
contains the chain, the nonces and the arguments. Workloads: `uniform` (everybody pays everybody),
`zipf` (the k-th account with a share like 1/k, on both sides), `weth` (everybody pays one account,
as traffic with one popular contract does).
"""

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from engine.address import encode_address
from engine.client import Client
from engine.columns import from_records, signed_messages
from engine.constants import TRANSACTION_BYTES, TRANSACTION_VERSION
from engine.dev import dev_key
from engine.genesis import transaction_domain
from kernels.insecure_signer import insecure_sign
from kernels.layout import U8, U64

WORKLOADS = ("uniform", "zipf", "weth")
VALID_UNTIL = 2**62
AMOUNT_MAX = 1_000
"""base units of a transfer; every account of the chain exists, so any amount is legal"""
SIGN_ROWS = 2**16
"""Signed at once."""
FOLDER = Path(os.environ.get("TOS_CACHE_DIR") or Path.home() / ".cache" / "tos", "load")
KEPT_FILES_MAX = 8
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is asked for; the same on the same chain gives the same transfers."""

    count: int
    """transfers"""
    batch: int
    """of each batch, the last one aside"""
    accounts: int
    workload: str = WORKLOADS[0]
    """one of WORKLOADS"""
    seed: int = 1
    connections: int = 1
    """Each sender belongs to one of so many, since its nonces must come in order."""

    def __str__(self) -> str:
        """Return all of it in one line, for the name of a file."""
        numbers = (self.count, self.batch, self.accounts, self.workload, self.seed)
        return " ".join(map(str, (*numbers, self.connections)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Signed transfers, batch by batch."""

    records: U8
    """(n, 192) uint8, in the order of sending"""
    batch: int
    """records of each batch, the last one aside"""
    addresses: tuple[str, ...]
    """of all senders"""
    nonces: tuple[int, ...]
    """of all senders before the first batch"""
    targets: I64
    """(batches,): over which connection each batch goes"""
    prefix: str
    """of the chain's addresses"""

    @property
    def count(self) -> int:
        """Transfers of all batches."""
        return len(self.records)

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return len(self.targets)

    def body(self, number: int) -> bytes:
        """Return the records of a batch."""
        return self.records[number * self.batch :][: self.batch].tobytes()

    def probes(self, number: int, count: int) -> list[tuple[str, int]]:
        """Return address of the sender and nonce of some transfers of a batch, the last included.

        The last one of each sender would say it all; some of them say it nearly always.
        """
        rows = self.records[number * self.batch :][: self.batch]
        step = -(-len(rows) // count)
        chosen = rows[::-1][::step]
        nonces = np.ascontiguousarray(chosen[:, 8:16]).view(np.uint64).reshape(-1)
        return [
            (encode_address(row[64:96].tobytes(), self.prefix), int(nonce))
            for row, nonce in zip(chosen, nonces, strict=True)
        ]


def prepare(
    client: Client, traffic: Traffic, say: Callable[[str], None], *, keeps: bool = True
) -> Plan:
    """Return the batches of a run, from disk where they were made before.

    say: is told in a sentence what happens. keeps: whether transfers are kept on disk, which is of
    use where a chain is loaded again and again. Raises SystemExit, with a sentence, where the chain
    does not have the accounts; NodeError.
    """
    if traffic.accounts < traffic.connections:
        raise SystemExit(
            f"{traffic.accounts} accounts are fewer than the {traffic.connections} connections"
        )
    status = client.status()
    keys = [dev_key(number) for number in range(traffic.accounts)]
    addresses = tuple(encode_address(key.public_key, status.address_prefix) for key in keys)
    nonces = _nonces(client, addresses)
    senders, recipients, targets = _payments(traffic)
    named = f"{status.genesis_hash} {traffic} {status.fee_minimum}".encode() + nonces.tobytes()
    path = FOLDER / f"{blake3(named).hexdigest()[:32]}.records"
    if path.is_file() and path.stat().st_size == traffic.count * TRANSACTION_BYTES:
        say(f"{traffic.count:,} signed transfers from {path}")
        records = np.fromfile(path, np.uint8).reshape(-1, TRANSACTION_BYTES)
    else:
        say(f"signing {traffic.count:,} transfers ...")
        seeds = np.frombuffer(b"".join(key.seed for key in keys), np.uint8).reshape(-1, 32)
        public = np.frombuffer(b"".join(key.public_key for key in keys), np.uint8).reshape(-1, 32)
        rows = _unsigned(senders, recipients, public, nonces, status.chain_id, traffic.seed)
        rows[:, 32:40] = np.frombuffer(int(status.fee_minimum).to_bytes(8, "little"), np.uint8)
        domain = transaction_domain(bytes.fromhex(status.genesis_hash))
        records = _sign(rows, senders, seeds, public, domain)
        if keeps:
            _keep(path, records)
    return Plan(
        records=records,
        batch=traffic.batch,
        addresses=addresses,
        nonces=tuple(nonces.tolist()),
        targets=targets,
        prefix=status.address_prefix,
    )


def _nonces(client: Client, addresses: Sequence[str]) -> U64:
    """Return the next nonce of each account at the head, (accounts,); all of them have to exist."""
    states = [client.account(address, "head") for address in addresses]
    missing = [state.address for state in states if not state.exists]
    if missing:
        raise SystemExit(
            f"{len(missing)} of {len(states)} accounts are not on this chain, {missing[0]} for "
            f"one: start it with `python -m engine dev --accounts {len(states)}`"
        )
    return np.array([int(state.next_nonce or state.nonce) for state in states], np.uint64)


def _payments(traffic: Traffic) -> tuple[I64, I64, I64]:
    """Return senders and recipients, (count,), and the connection of each batch."""
    count, accounts, connections = traffic.count, traffic.accounts, traffic.connections
    rng = np.random.default_rng(traffic.seed)
    batches = -(-count // traffic.batch)
    targets = np.arange(batches, dtype=np.int64) % connections
    target = np.repeat(targets, traffic.batch)[:count]
    places = accounts // connections
    if traffic.workload == "zipf":
        weights = 1 / np.arange(1, places + 1)
        senders = rng.choice(places, count, p=weights / weights.sum())
        weights = 1 / np.arange(1, accounts + 1)
        recipients = rng.choice(accounts, count, p=weights / weights.sum())
    else:
        senders = np.arange(count) % places
        recipients = rng.integers(0, accounts, count)
    if traffic.workload == "weth":
        recipients = np.zeros(count, np.int64)
    senders = senders * connections + target
    return senders.astype(np.int64), recipients.astype(np.int64), targets


def _unsigned(
    senders: I64, recipients: I64, public: U8, nonces: U64, chain_id: int, seed: int
) -> U8:
    """Return (n, 192) records without fee and signature, each sender's nonces in order."""
    count = len(senders)
    order = np.argsort(senders, kind="stable")
    rank = np.empty(count, np.int64)
    sorted_senders = senders[order]
    starts = np.searchsorted(sorted_senders, sorted_senders, side="left")
    rank[order] = np.arange(count) - starts
    rows = np.zeros((count, TRANSACTION_BYTES), np.uint8)
    rows[:, 0] = TRANSACTION_VERSION
    rows[:, 4:8] = np.frombuffer(chain_id.to_bytes(4, "little"), np.uint8)
    amounts = np.random.default_rng(seed + 1).integers(1, AMOUNT_MAX, count).astype(np.uint64)
    numbers = (
        nonces[senders] + rank.astype(np.uint64),
        np.full(count, VALID_UNTIL, np.uint64),
        amounts,
    )
    for start, column in zip((8, 16, 24), numbers, strict=True):
        rows[:, start : start + 8] = column.view(np.uint8).reshape(-1, 8)
    rows[:, 64:96] = public[senders]
    rows[:, 96:128] = public[recipients]
    return rows


def _sign(rows: U8, senders: I64, seeds: U8, public: U8, domain: bytes) -> U8:
    """Put the signatures in, and return the records."""
    for start in range(0, len(rows), SIGN_ROWS):
        part = rows[start : start + SIGN_ROWS]
        who = senders[start : start + SIGN_ROWS]
        messages = signed_messages(from_records(part), domain)
        part[:, 128:] = insecure_sign(
            np.ascontiguousarray(seeds[who]), np.ascontiguousarray(public[who]), messages
        )
    return rows


def _keep(path: Path, records: U8) -> None:
    """Keep a file whole or not at all, and only the newest few."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{secrets.token_hex(4)}.part")
    records.tofile(part)
    part.replace(path)
    kept = sorted(path.parent.glob("*.records"), key=lambda item: item.stat().st_mtime_ns)
    for old in kept[:-KEPT_FILES_MAX]:
        old.unlink(missing_ok=True)
