"""Every decoder against foreign bytes: a value that encodes to the same bytes, or its own error.

A decoder may refuse with the errors that its docstring names and nothing else; what has one
encoding must give it back. Memory must not grow and no input may take long: whoever hangs is ended
with a traceback by `faulthandler`, which a parent sees as a crash.
"""

import faulthandler
import json
import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.address import decode_address, encode_address
from engine.codec import PayloadLimits, decode_payload, encode_payload
from engine.columns import from_records, to_records
from engine.constants import TRANSACTION_BYTES
from engine.errors import AddressError, GenesisError, InvalidPayload, RecordError
from engine.genesis import genesis_hash
from engine.genesis_file import parse_genesis
from engine.header import Header
from engine.store.history import Delta, HistoryError, decode_history, encode_history
from engine_api import auth, chunks, codec, streams
from engine_api.types import (
    Attributes,
    BlockId,
    EngineApiError,
    ErrorCode,
    ForkchoiceAnswer,
    ForkchoiceStatus,
    HealthAnswer,
    Limits,
    NewPayloadAnswer,
    PayloadRequest,
    StatusAnswer,
    SubmitAnswer,
    Validator,
    ValidatorSetAnswer,
    Verdict,
    Versions,
)
from spec import oracle
from tests.campaign import fuzz_gossip
from tests.campaign.chain import OracleChain
from tests.campaign.mutate import mutate

LIMITS = PayloadLimits(bytes=2**16, transactions=500, objects=500)
HANG_S = 20
"""in which BATCH inputs must be over"""
BATCH = 500
WARM_INPUTS = 5_000
GROWTH_BYTES_MAX = 2**26
"""of the process, after it has warmed up"""
SHOWN_BYTES_MAX = 2_000
NOWHERE = Path("no-such-folder")
SECRET = bytes(range(32))
NOW_S = 1_800_000_000
BOOT_ID = bytes(16)
HASH = bytes(range(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A decoder, examples of what it accepts, and the errors it may raise."""

    name: str
    decode: Callable[[bytes], object]
    """also compares what it made with the input, by assertions"""
    examples: Sequence[bytes]
    errors: tuple[type[Exception], ...]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a run came to."""

    inputs: int = 0
    accepted: int = 0
    growth_bytes: int = 0
    violations: list[str] = field(default_factory=list)


def targets(rng: random.Random) -> list[Target]:
    """Return all decoders with fresh examples."""
    chain = OracleChain(rng, 8)
    parent = chain.begin(HASH)
    blocks = [chain.make(parent, count) for count in (0, 1, 7, 40)]
    records = [
        b"".join(oracle.encode_transaction(t) for t in chain.transactions(parent, count))
        for count in (1, 5)
    ]
    texts = [json.dumps(chain.genesis_json).encode(), json.dumps(small_genesis(chain)).encode()]
    addresses = [encode_address(HASH, "tos").encode(), f"0x{HASH.hex()}".encode()]
    token = auth.make_token(SECRET, NOW_S).encode()
    headers = [block.header for block in blocks]
    return [
        Target(
            name="payload",
            decode=decode_one_payload,
            examples=[block.payload for block in blocks],
            errors=(InvalidPayload,),
        ),
        Target(name="header", decode=decode_header, examples=headers, errors=(InvalidPayload,)),
        Target(name="records", decode=decode_records, examples=records, errors=(RecordError,)),
        Target(name="genesis", decode=decode_genesis, examples=texts, errors=(GenesisError,)),
        Target(name="address", decode=decode_text, examples=addresses, errors=(AddressError,)),
        Target(name="token", decode=decode_token, examples=[token], errors=(EngineApiError,)),
        Target(
            name="history", decode=decode_stored, examples=histories(rng), errors=(HistoryError,)
        ),
        Target(
            name="gossip",
            decode=fuzz_gossip.Conduct(rng),
            examples=fuzz_gossip.examples(rng),
            errors=fuzz_gossip.ERRORS,
        ),
        *message_targets(headers, blocks[2].payload),
    ]


def message_targets(headers: list[bytes], payload: bytes) -> list[Target]:
    """Return the decoders of the Engine API's messages, of both sides."""
    request = PayloadRequest(
        parent_hash=HASH,
        height=7,
        limits=Limits(bytes=2**20, transactions=100, objects=100),
        attributes=Attributes(timestamp_ms=2**40, fee_recipient=HASH),
        wait_ms=50,
    )
    ids = tuple(BlockId(height=n, hash=HASH) for n in range(3))
    versions = Versions(api=1, header=1, payload=1, state=1, software="0.1")
    status = StatusAnswer(
        boot_id=BOOT_ID, genesis_hash=HASH, params_hash=HASH, finalized=ids[0], head=ids[1],
        unfinalized=ids, versions=versions,
    )  # fmt: skip
    verdict = NewPayloadAnswer(
        boot_id=BOOT_ID, verdict=Verdict.INVALID, reason=9, latest_valid_hash=HASH, detail="why"
    )
    members = tuple(Validator(key=bytes([n]) * 32, power=n) for n in range(1, 4))
    validators = ValidatorSetAnswer(
        boot_id=BOOT_ID, epoch=1, validators=members, validator_set_id=HASH
    )
    health = HealthAnswer(
        boot_id=BOOT_ID, not_serving="", finalized_height=3, free_disk_bytes=2**40
    )
    moved = ForkchoiceAnswer(boot_id=BOOT_ID, status=ForkchoiceStatus.OK)
    submitted = SubmitAnswer(boot_id=BOOT_ID, results=b"\1\2\3")
    error = EngineApiError(ErrorCode.CONFLICT, "why", boot_id=BOOT_ID)
    stream = [next(streams.encode_new_payload(header, payload)) for header in headers]
    table: list[tuple[str, Callable[[bytes], object], list[bytes]]] = [
        ("PayloadRequest", codec.decode_payload_request, [codec.encode_payload_request(request)]),
        ("Forkchoice", codec.decode_forkchoice_request,
         [codec.encode_forkchoice_request(HASH, HASH, HASH)]),
        ("Hashes", codec.decode_hashes, [codec.encode_hashes([HASH, HASH])]),
        ("Heights", codec.decode_heights, [codec.encode_heights(5, 9)]),
        ("Epoch", codec.decode_epoch, [codec.encode_epoch(3)]),
        ("Status", codec.decode_status, [codec.encode_status(status)]),
        ("Verdict", codec.decode_new_payload, [codec.encode_new_payload(verdict)]),
        ("Moved", codec.decode_forkchoice, [codec.encode_forkchoice(moved)]),
        ("Validators", codec.decode_validator_set, [codec.encode_validator_set(validators)]),
        ("Health", codec.decode_health, [codec.encode_health(health)]),
        ("Submit", lambda data: codec.decode_submit(data, 3), [codec.encode_submit(submitted)]),
        ("Error", codec.decode_error, [codec.encode_error(error)]),
        ("Chunk", chunks.decode_chunk, list(chunks.encode_chunks(payload))),
        ("NewPayloadHead", lambda data: streams.read_new_payload_head(iter([data])), stream),
    ]  # fmt: skip
    return [
        Target(name=name, decode=decode, examples=examples, errors=(EngineApiError,))
        for name, decode, examples in table
    ]


def small_genesis(chain: OracleChain) -> dict[str, object]:
    """Return the chain's genesis with few accounts and a schedule."""
    made = dict(chain.genesis_json)
    made["accounts"] = made["accounts"][:2]
    made["validator_schedule"] = [{"epoch": 5, "validators": made["validators"]}]
    return made


def histories(rng: random.Random) -> list[bytes]:
    """Return deltas and receipts as they are stored."""
    made = []
    for changed, created, count in ((0, 0, 0), (1, 1, 1), (20, 3, 17)):
        delta = Delta(
            slots=np.arange(5, 5 + changed, dtype=np.uint32),
            balances=np.array([rng.getrandbits(40) for _ in range(changed)], np.uint64),
            nonces=np.arange(changed, dtype=np.uint64),
            created_keys=np.frombuffer(rng.randbytes(32 * created), np.uint8).reshape(-1, 32),
            count_before=30,
            count_after=30 + created,
        )
        statuses = np.array([rng.randrange(3) for _ in range(count)], np.uint8)
        made.append(b"".join(bytes(part) for part in encode_history(delta, statuses)))
    return made


def decode_one_payload(data: bytes) -> None:
    """Decode a payload; what is accepted has this one encoding."""
    batch = decode_payload(data, LIMITS)
    assert encode_payload(batch.columns, batch.lane_offsets) == data, "another encoding"


def decode_header(data: bytes) -> None:
    """Decode a header; every 400 bytes are one."""
    assert Header.decode(data).encode() == data, "another encoding"


def decode_records(data: bytes) -> None:
    """Decode whole records, as many as there are."""
    count = len(data) // TRANSACTION_BYTES
    rows = np.frombuffer(data[: count * TRANSACTION_BYTES], np.uint8).reshape(
        count, TRANSACTION_BYTES
    )
    if count:
        assert (to_records(from_records(rows)) == rows).all(), "another encoding"


def decode_genesis(data: bytes) -> None:
    """Read a genesis, and hash what is accepted."""
    genesis_hash(parse_genesis(data, NOWHERE))


def decode_text(data: bytes) -> None:
    """Decode an address; a key has one text with this prefix, small or capital, and hex."""
    key = decode_address(data.decode("latin-1"), "tos")
    assert decode_address(encode_address(key, "tos"), "tos") == key


def decode_token(data: bytes) -> None:
    """Check a token."""
    auth.check_token(data.decode("latin-1"), SECRET, NOW_S)


def decode_stored(data: bytes) -> None:
    """Decode a stored delta with its receipts."""
    decode_history(memoryview(data))


def run(seed: int, *, inputs: int | None = None, seconds: float | None = None) -> Tally:
    """Try so many inputs, or so long, in this process."""
    rng = random.Random(seed)
    able = targets(rng)
    tally = Tally()
    start_bytes = 0
    end_s = time.monotonic() + (seconds if seconds is not None else 10**9)
    try:
        while time.monotonic() < end_s and (inputs is None or tally.inputs < inputs):
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            for _ in range(BATCH):
                _try_one(rng, rng.choice(able), tally)
            if tally.inputs >= WARM_INPUTS and not start_bytes:
                start_bytes = resident_bytes()
    finally:
        faulthandler.cancel_dump_traceback_later()
    tally.growth_bytes = resident_bytes() - start_bytes if start_bytes else 0
    if tally.growth_bytes > GROWTH_BYTES_MAX:
        tally.violations.append(f"memory grew by {tally.growth_bytes} bytes")
    return tally


def _try_one(rng: random.Random, target: Target, tally: Tally) -> None:
    data = mutate(rng, target.examples)
    tally.inputs += 1
    try:
        target.decode(data)
        tally.accepted += 1
    except target.errors:
        return
    except Exception as error:
        shown = data.hex()[:SHOWN_BYTES_MAX]
        kind = type(error).__name__
        tally.violations.append(f"{target.name}: {kind}: {error} from {len(data)} bytes {shown}")


def run_processes(seed: int, *, seconds: float, processes: int) -> Tally:
    """Try so long in several processes; one that crashes or hangs is a violation."""
    total = Tally()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = [pool.submit(run, seed + n, seconds=seconds) for n in range(processes)]
        for number, job in enumerate(jobs):
            try:
                tally = job.result()
            except BrokenProcessPool as error:
                total.violations.append(f"seed {seed + number}: the process crashed: {error}")
                continue
            total.inputs += tally.inputs
            total.accepted += tally.accepted
            total.growth_bytes = max(total.growth_bytes, tally.growth_bytes)
            total.violations += tally.violations
    return total


def resident_bytes() -> int:
    """Return the memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
