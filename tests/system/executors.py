"""A home with its chain and its process, as the tests of the process need them."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from engine_api.client import EngineApiClient
from engine_api.types import NewPayloadAnswer, Verdict
from tests.campaign.chain import PAYLOAD_BYTES_MAX, Block, OracleChain
from tests.campaign.kills import deadline
from tests.campaign.process import Executor, call


@dataclass(slots=True, kw_only=True)
class Subject:
    """A chain that the oracle knows and the executor that follows it."""

    chain: OracleChain
    executor: Executor
    genesis: Block

    def start(self) -> EngineApiClient:
        """Start the process and return a client; the caller closes it."""
        self.executor.start()
        self.executor.wait_ready()
        return self.executor.client()


def make_subject(folder: Path, rng: random.Random, settings: tuple[str, ...]) -> Subject:
    """Make genesis and home in a folder."""
    chain = OracleChain(rng)
    genesis_path = folder / "genesis.json"
    chain.write_genesis(genesis_path)
    home = folder / "h"
    made = call("init", "--genesis", str(genesis_path), "--home", str(home), "--json")
    assert made.returncode == 0, made.stderr
    genesis = chain.begin(bytes.fromhex(json.loads(made.stdout)["genesis_hash"]))
    executor = Executor(
        home,
        payload_bytes_max=PAYLOAD_BYTES_MAX,
        settings=("--free-bytes-min", "0", *settings),
    )
    return Subject(chain=chain, executor=executor, genesis=genesis)


def send(client: EngineApiClient, block: Block) -> NewPayloadAnswer:
    """Send a block with its payload."""
    return client.new_payload(block.header, block.payload, deadline())


def extend(subject: Subject, client: EngineApiClient, parent: Block, sizes: list[int]) -> Block:
    """Send blocks one on the other, each VALID, and return the last."""
    for count in sizes:
        parent = subject.chain.make(parent, count)
        answer = send(client, parent)
        assert answer.verdict == Verdict.VALID, answer
    return parent


def finalize(client: EngineApiClient, block: Block) -> None:
    """Make a block final."""
    client.forkchoice_updated(block.hash, block.hash, block.hash, deadline())
