"""Foreign messages through the socket of a real executor, on every method, from many threads.

Whatever comes, each call ends with an answer or with an error of the contract that blames the
caller; the process lives, holds bounded memory and files, and afterwards judges a good block.
"""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from engine_api import codec, streams
from engine_api.chunks import encode_chunks
from engine_api.tos import engine_pb2 as pb
from engine_api.transport import CODES, method_path
from engine_api.types import ErrorCode, Verdict
from tests.campaign.chain import Block
from tests.campaign.fuzz import message_targets
from tests.campaign.kills import Campaign, Violation, deadline, empty_request
from tests.campaign.mutate import mutate
from tests.campaign.process import ProcessFailed

THREADS = 4
TIMEOUT_S = 2
"""of a call; a GetPayload whose wait_ms was changed may take all of it"""
GROWTH_BYTES_MAX = 2**29
"""of the executor; its queue of submitted transactions alone may hold 50 MB"""
FILES_MAX = 200
BLAMES_CALLER = {
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.UNSUPPORTED,
    ErrorCode.CONFLICT,
    ErrorCode.PAYLOAD_NOT_HELD,
    ErrorCode.DEPTH_EXCEEDED,
    ErrorCode.RESOURCE_EXHAUSTED,
    ErrorCode.DEADLINE_EXCEEDED,
}
"""errors that foreign bytes may meet with; INTERNAL and UNAVAILABLE are failures of the executor"""
GOOD_SHARE = 0.3
"""of messages that are sent unchanged, though perhaps in the wrong place"""
VIOLATIONS_MAX = 20
PARTS_MAX = 4
"""messages of one stream"""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a run came to."""

    messages: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    """answers and errors by name"""
    growth_bytes: int = 0
    open_files: int = 0
    violations: list[str] = field(default_factory=list)


class Senders:
    """One raw channel, and per method a way to send it something foreign."""

    def __init__(self, address: str, blocks: list[Block]) -> None:
        """Connect; `blocks`: good ones, from which messages are made."""
        self._channel = grpc.insecure_channel(address)
        headers = [block.header for block in blocks]
        self._examples = {
            target.name: list(target.examples)
            for target in message_targets(headers, blocks[-1].payload)
        }
        self._blocks = blocks
        hashes = [blocks[0].parent_hash, *(block.hash for block in blocks)]
        self._examples["PayloadRequest"] += [
            codec.encode_payload_request(empty_request(block)) for block in blocks
        ]
        self._examples["Forkchoice"] += [
            codec.encode_forkchoice_request(head, safe, final)
            for head in hashes
            for safe in hashes
            for final in hashes
        ]
        self._examples["Hashes"].append(codec.encode_hashes(hashes))
        names = pb.DESCRIPTOR.services_by_name["ExecutionEngine"].methods_by_name
        self._calls: dict[str, Any] = {
            name: self._call(name, method.client_streaming, method.server_streaming)
            for name, method in names.items()
        }

    def close(self) -> None:
        """Disconnect."""
        self._channel.close()

    def send(self, rng: random.Random) -> str:
        """Send one call and return its outcome: `OK` or the name of an error."""
        name = rng.choice(list(self._calls))
        try:
            answer = self._calls[name](self._request(name, rng), timeout=TIMEOUT_S)
            if isinstance(answer, grpc.Call) and isinstance(answer, Iterator):
                for _ in answer:
                    continue
        except grpc.RpcError as error:
            return outcome_of(error)
        return "OK"

    def _call(self, name: str, is_reader: bool, is_writer: bool) -> Any:
        kinds = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, False): self._channel.stream_unary,
        }
        return kinds[is_reader, is_writer](method_path(name))

    def _request(self, name: str, rng: random.Random) -> Any:
        if name == "NewPayload":
            return iter(self._new_payload_parts(rng))
        if name == "Submit":
            return iter([self._near(rng, "Chunk") for _ in range(rng.randrange(PARTS_MAX + 1))])
        table = {
            "GetPayload": "PayloadRequest",
            "ForkchoiceUpdated": "Forkchoice",
            "GetBodiesByHash": "Hashes",
            "GetBodiesByRange": "Heights",
            "GetValidatorSet": "Epoch",
        }
        return self._near(rng, table.get(name, "Health"))

    def _near(self, rng: random.Random, kind: str) -> bytes:
        if rng.random() < GOOD_SHARE:
            return rng.choice(self._examples[kind])
        return mutate(rng, self._examples[kind])

    def _new_payload_parts(self, rng: random.Random) -> list[bytes]:
        """Return a stream: a good or changed header, the payload good, changed, cut or mixed."""
        block = rng.choice(self._blocks)
        header = block.header if rng.random() < 0.5 else mutate(rng, [block.header])
        payload = block.payload if rng.random() < 0.3 else mutate(rng, [block.payload])
        parts = [next(streams.encode_new_payload(header, payload)), *encode_chunks(payload)]
        if rng.random() < 0.3:
            place = rng.randrange(len(parts))
            parts[place] = mutate(rng, [parts[place]])
        if rng.random() < 0.1:
            rng.shuffle(parts)
        return parts


def outcome_of(error: grpc.RpcError) -> str:
    """Return the name of a failed call's error, or the status that is none of the contract's."""
    assert isinstance(error, grpc.Call), "a call that failed has a status"
    code = CODES.get(error.code())
    return code.name if code is not None else f"{error.code()}: {error.details()}"


def run(folder: Path, seed: int, messages: int) -> Tally:
    """Send so many messages to a fresh executor in an empty folder."""
    tally = Tally()
    campaign = Campaign(folder, seed)
    executor = campaign.executor
    executor.start()
    try:
        executor.wait_ready()
        _send_all(campaign, seed, messages, tally)
    except (ProcessFailed, Violation) as error:
        tally.violations.append(str(error))
    finally:
        if executor.is_running:
            executor.kill()
    return tally


def _send_all(campaign: Campaign, seed: int, messages: int, tally: Tally) -> None:
    chain, executor = campaign.chain, campaign.executor
    parent = campaign.finalized
    blocks = [chain.make(parent, count) for count in (0, 3, 60)]
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    start_bytes = executor.resident_bytes()

    def work(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        senders = Senders(executor.address, blocks)
        try:
            for _ in range(messages // THREADS):
                outcome = senders.send(rng)
                with lock:
                    outcomes[outcome] += 1
        finally:
            senders.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.outcomes = dict(sorted(outcomes.items()))
    tally.messages = sum(outcomes.values())
    allowed = {"OK", *(code.name for code in BLAMES_CALLER)}
    tally.violations += [
        f"{count} calls ended with {name}"
        for name, count in outcomes.items()
        if name not in allowed
    ]
    if not executor.is_running:
        raise Violation(
            f"the executor ended with {executor.wait()}:\n{executor.log_text()[-4000:]}"
        )
    tally.growth_bytes = executor.resident_bytes() - start_bytes
    tally.open_files = executor.open_files()
    if tally.growth_bytes > GROWTH_BYTES_MAX:
        tally.violations.append(f"the executor grew by {tally.growth_bytes} bytes")
    if tally.open_files > FILES_MAX:
        tally.violations.append(f"the executor has {tally.open_files} files open")
    failed = [line for line in executor.log() if line.get("event") == "a call failed"]
    tally.violations += [f"a call failed inside: {line}" for line in failed[:VIOLATIONS_MAX]]
    _check_still_serves(campaign)
    code = executor.stop()
    if code:
        tally.violations.append(f"SIGTERM ended the executor with {code}")


def _check_still_serves(campaign: Campaign) -> None:
    """A good block on what is finalized now is VALID, with the state that the oracle gives."""
    with campaign.executor.client() as client:
        name = client.get_status(deadline()).finalized.hash
        parent = campaign.chain.blocks.get(name)
        if parent is None:
            raise Violation(f"foreign bytes finalized the unknown block {name.hex()}")
        block = campaign.chain.make(parent, 10)
        answer = client.new_payload(block.header, block.payload, deadline())
        if answer.verdict != Verdict.VALID:
            raise Violation(f"a good block is {answer.verdict.name} now: {answer.detail}")
        client.forkchoice_updated(block.hash, block.hash, block.hash, deadline())
