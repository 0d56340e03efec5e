"""The chain once more, from genesis, beside the network that made it.

Two arms. `serial`: the scalar bodies on one thread, and every signature by libsodium; blocks are
verified ahead by a few threads, executed one after the other. `oracle`: the specification's own
Python, for the first heights; of signatures, which cost it milliseconds, it judges some per block.
Both compare every result with the header: commitment, roots, counts, state_hash, receipts_hash, and
that headers follow each other.

    python -m bench.network.replay serial --genesis FILE --engine ADDRESS... [--threads 2]

reads lines of JSON: {"final": H} (go on to there, asking an executor for blocks) and
{"home": DIR, "final": H} (the same from the stopped executor's home, then end). It writes
{"done": H} at each stop and {"result": ...} at the end. It runs while the network does, and behind
it: whoever starts it gives it a low priority.
"""

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np

from engine.codec import decode_payload, payload_commitment
from engine.columns import signed_messages
from engine.errors import InvalidPayload
from engine.genesis import Genesis, genesis_hash, transaction_domain
from engine.genesis_file import load_genesis
from engine.header import Header
from engine.state import State
from engine.store.store import Store
from engine.transition import BlockContext, LedgerRules, execute_payload
from engine_api.client import EngineApiClient
from engine_api.protocol import Deadline
from engine_api.types import BODIES_MAX, EngineApiError, ErrorCode
from kernels.backend import Backend, open_backend
from kernels.layout import U8

AHEAD = 16
"""blocks that are verified, or being verified, before their turn"""
CALL_MS = 20_000
BODIES_PER_CALL = 16
ASK_ROUNDS = 20
ORACLE_HEIGHTS = 20
ORACLE_LOADED = 3
"""blocks with transactions that the oracle sees, if there are any soon"""
ORACLE_HEIGHTS_MAX = 60
ORACLE_SIGNATURES = 25
"""per block"""
assert BODIES_PER_CALL <= BODIES_MAX

Block = tuple[int, bytes, bytes]
"""height, header, payload"""


class Differs(Exception):
    """The chain is not what its genesis and its payloads lead to."""


@dataclass(slots=True, kw_only=True)
class Result:
    """What an arm came to."""

    height: int = 0
    """that it reached, all equal up to here"""
    transactions: int = 0
    signatures: int = 0
    difference: str = ""


class Arm(Protocol):
    """Executes blocks in order."""

    def __call__(self, block: Block) -> None:
        """Execute the next block; raises Differs."""


class Chain:
    """What every arm checks of a block before it executes it."""

    def __init__(self, genesis: Genesis) -> None:
        """Stand at genesis."""
        self.genesis = genesis
        self.name = genesis_hash(genesis)
        self.domain = transaction_domain(self.name)
        self.rules = LedgerRules(genesis.fee_minimum, genesis.account_minimum, genesis.accounts_max)
        self._parent: bytes = self.name

    def check(self, block: Block) -> Header:
        """Return the header of the next block; raises Differs."""
        height, data, payload = block
        header = Header.decode(data)
        if header.height != height or header.parent_hash != self._parent:
            raise Differs(f"height {height}: the header does not follow the one before")
        if header.payload_bytes != len(payload):
            raise Differs(f"height {height}: {len(payload)} bytes of payload")
        if header.payload_commitment != payload_commitment(payload):
            raise Differs(f"height {height}: payload_commitment is not that of the payload")
        self._parent = header.block_hash()
        return header


def compare(header: Header, name: str, mine: object) -> None:
    """Raise Differs unless a field of the header is what was computed."""
    said = getattr(header, name)
    if said != mine:
        shown = [v.hex() if isinstance(v, bytes) else v for v in (said, mine)]
        raise Differs(f"height {header.height}: {name} is {shown[0]}, replayed {shown[1]}")


class SerialArm:
    """The serial backend; `verify` may be called ahead, from several threads."""

    def __init__(self, chain: Chain, result: Result, backend: Backend) -> None:
        """Open the accounts of genesis."""
        self._chain, self._result, self._backend = chain, result, backend
        genesis = chain.genesis
        self._state = State(genesis.account_keys, genesis.account_balances, backend=backend)

    def verify(self, block: Block) -> tuple[Block, U8 | None]:
        """Judge all signatures of a block by libsodium; None where its payload has no columns."""
        try:
            columns = decode_payload(block[2], self._chain.genesis.parameters.limits).columns
        except InvalidPayload:
            # The execution says in which order of checks it is wrong.
            return block, None
        messages = signed_messages(columns, self._chain.domain)
        return block, self._backend.verify_signatures(columns.sender, columns.signature, messages)

    def execute(self, block: Block, verdicts: U8 | None) -> None:
        """Execute the next block; raises Differs."""
        header = self._chain.check(block)
        if verdicts is not None and not verdicts.all():
            raise Differs(f"height {block[0]}: signature {int(np.argmin(verdicts))} is not valid")
        context = BlockContext(
            chain_id=self._chain.genesis.chain_id,
            height=block[0],
            fee_recipient=header.fee_recipient,
            transaction_domain=self._chain.domain,
            rules=self._chain.rules,
            limits=self._chain.genesis.parameters.limits,
        )
        try:
            outcome = execute_payload(
                self._state, block[2], context,
                is_verified=lambda hashes: np.ones(len(hashes), np.bool_),
            )  # fmt: skip
        except InvalidPayload as error:
            raise Differs(f"height {block[0]}: {error}") from error
        compare(header, "chain_id", self._chain.genesis.chain_id)
        compare(header, "transaction_count", len(outcome.statuses))
        compare(header, "transactions_root", outcome.transactions_root)
        compare(header, "receipts_hash", outcome.receipts_hash)
        compare(header, "state_hash", outcome.state_hash)
        self._result.height = block[0]
        self._result.transactions += len(outcome.statuses)
        self._result.signatures += len(outcome.statuses)


class OracleArm:
    """The specification's own Python."""

    def __init__(self, chain: Chain, result: Result) -> None:
        """Begin with the accounts of genesis."""
        import spec.oracle

        self._oracle: Any = spec.oracle  # its names come from Markdown
        self._chain, self._result = chain, result
        genesis, limits = chain.genesis, chain.genesis.parameters.limits
        self._accounts = [
            self._oracle.Account(key.tobytes(), int(balance))
            for key, balance in zip(genesis.account_keys, genesis.account_balances, strict=True)
        ]
        self._limits = self._oracle.Limits(limits.bytes, limits.transactions, limits.objects)
        self._ledger = self._oracle.Ledger(
            chain_id=genesis.chain_id,
            fee_minimum=genesis.fee_minimum,
            account_minimum=genesis.account_minimum,
            accounts_max=genesis.accounts_max,
            domain=chain.domain,
            limits=self._limits,
        )

    def execute(self, block: Block) -> int:
        """Execute the next block and return its count of transactions; raises Differs."""
        header = self._chain.check(block)
        oracle, height = self._oracle, block[0]
        try:
            lanes = oracle.decode_payload(block[2], self._limits)
            done = oracle.execute_payload(
                self._accounts, block[2], self._ledger, height, header.fee_recipient, verify=False
            )
        except oracle.Invalid as error:
            raise Differs(f"height {height}: the oracle refuses it: {error}") from error
        transactions = [item for lane in lanes for item in lane]
        step = max(1, len(transactions) // ORACLE_SIGNATURES)
        for item in transactions[::step]:
            message = oracle.signed_message(item, self._ledger.domain)
            if not oracle.is_valid_signature(item.sender, item.signature, message):
                raise Differs(f"height {height}: the oracle refuses a signature")
            self._result.signatures += 1
        self._accounts = done.accounts
        compare(header, "transaction_count", len(transactions))
        compare(header, "transactions_root", done.transactions_root)
        compare(header, "receipts_hash", done.receipts_hash)
        compare(header, "state_hash", done.state_hash)
        self._result.height = height
        self._result.transactions += len(transactions)
        return len(transactions)


def from_engines(addresses: list[str], first: int, last: int, bytes_max: int) -> Iterator[Block]:
    """Yield final blocks from executors that run; the next one is asked where one does not answer.

    Raises EngineApiError where none of them has a block after ASK_ROUNDS.
    """
    height, failures = first, 0
    while height <= last:
        address = addresses[failures % len(addresses)]
        try:
            with EngineApiClient(address, payload_bytes_max=bytes_max) as client:
                while height <= last:
                    count = min(BODIES_PER_CALL, last - height + 1)
                    deadline = Deadline.after_ms(CALL_MS)
                    for body in client.bodies_by_range(height, count, deadline):
                        if not body.is_found:
                            break
                        yield height, body.header, bytes(body.payload)
                        height, count = height + 1, count - 1
                    if count:
                        text = f"no executor that was asked has height {height}"
                        raise EngineApiError(ErrorCode.UNAVAILABLE, text)
        except EngineApiError:
            failures += 1
            if failures > ASK_ROUNDS * len(addresses):
                raise


def from_home(home: Path, first: int, last: int) -> Iterator[Block]:
    """Yield final blocks of a home that nobody has open."""
    with Store.open(home) as store:
        for height in range(first, min(last, store.finalized.height) + 1):
            block = store.block_at(height)
            payload = None if block is None else store.payload(block.block_hash)
            if block is None or payload is None:
                raise Differs(f"height {height} is not in {home}")
            yield height, block.header, bytes(payload)


Take = Callable[[Iterator[Block]], None]


def serial_take(arm: SerialArm, pool: ThreadPoolExecutor) -> Take:
    """Return what executes a run of blocks, verified ahead by the pool."""

    def take(blocks: Iterator[Block]) -> None:
        ahead: deque[Future[tuple[Block, U8 | None]]] = deque()
        for block in blocks:
            ahead.append(pool.submit(arm.verify, block))
            if len(ahead) >= AHEAD:
                arm.execute(*ahead.popleft().result())
        while ahead:
            arm.execute(*ahead.popleft().result())

    return take


def oracle_take(arm: OracleArm, result: Result) -> Take:
    """Return what executes a run of blocks until the oracle has seen enough."""
    loaded = 0

    def take(blocks: Iterator[Block]) -> None:
        nonlocal loaded
        for block in blocks:
            if oracle_is_done(result.height, loaded):
                return
            loaded += bool(arm.execute(block))

    return take


def oracle_is_done(height: int, loaded: int) -> bool:
    """Say whether the oracle has seen enough."""
    is_enough = height >= ORACLE_HEIGHTS and loaded >= ORACLE_LOADED
    return is_enough or height >= ORACLE_HEIGHTS_MAX


def say(values: dict[str, Any]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def serve(take: Take, result: Result, engines: list[str], bytes_max: int) -> None:
    """Follow the orders of stdin to the last one."""
    for line in sys.stdin:
        order = json.loads(line)
        first, last = result.height + 1, int(order["final"])
        try:
            if "home" in order:
                take(from_home(Path(order["home"]), first, last))
            else:
                take(from_engines(engines, first, last, bytes_max))
        except Differs as error:
            result.difference = str(error)
        except EngineApiError as error:
            # The network has trouble at this moment; whoever gives orders names a home at the end.
            sys.stderr.write(f"replay: {error}\n")
        say({"done": result.height})
        if "home" in order or result.difference:
            break


@click.command()
@click.argument("arm", type=click.Choice(["serial", "oracle"]))
@click.option(
    "--genesis", "file", type=click.Path(dir_okay=False, exists=True, path_type=Path), required=True
)
@click.option("--engine", "engines", multiple=True, help="address of an Engine API")
@click.option("--threads", type=click.IntRange(1, 64), default=2, help="that verify ahead")
def main(arm: str, file: Path, engines: tuple[str, ...], threads: int) -> None:
    """Execute a chain again; see the head of this file."""
    genesis, result = load_genesis(file), Result()
    chain = Chain(genesis)
    pools: AbstractContextManager[ThreadPoolExecutor | None] = nullcontext()
    if arm == "serial":
        pools = ThreadPoolExecutor(threads)
    with pools as pool:
        if pool is None:
            take = oracle_take(OracleArm(chain, result), result)
        else:
            take = serial_take(SerialArm(chain, result, open_backend("serial")), pool)
        serve(take, result, list(engines), genesis.parameters.payload_bytes_max)
    say(
        {
            "result": {
                "arm": arm,
                "height": result.height,
                "transactions": result.transactions,
                "signatures": result.signatures,
                "difference": result.difference,
            }
        }
    )


if __name__ == "__main__":
    main()
