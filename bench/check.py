"""The oracle beside the arms: the first blocks of a run, executed by the specification itself.

Plain Python takes about 6 s for a block of 100,000 transactions over a million accounts, most of
it for hashing the whole state; a signature costs it 2 ms. So the first blocks are executed as they
are, their signatures apart, and where blocks verify signatures a small copy of the workload (same
pattern, same seed) goes through the arms and the oracle once more, with every signature judged.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blake3

from bench.arms import ACCOUNTS_MAX, ArmRun, BlockResult, run_arm
from bench.blocks import CHAIN_ID, Workload
from bench.workloads import ACCOUNT_MINIMUM, FEE_MINIMUM

CHECK_BLOCKS = 2
"""First blocks of a run that the oracle executes whole."""
COPY_ACCOUNTS = 2000
COPY_TRANSACTIONS = 200
"""Per block of the small copy whose signatures the oracle judges."""


def matches_first_blocks(runs: Sequence[ArmRun], workload: Workload) -> list[bool]:
    """Say of each arm whether its first blocks are the oracle's, signatures not looked at."""
    expected = oracle_blocks(workload, CHECK_BLOCKS, is_signed=False)
    return [run.blocks[: len(expected)] == expected for run in runs]


def matches_copy(runs: Sequence[ArmRun], copy: Workload, directory: Path) -> list[bool]:
    """Run each arm over the small signed `copy`; say whether it gives what the oracle gives."""
    expected = oracle_blocks(copy, len(copy.payloads), is_signed=True)
    matches = []
    for run in runs:
        again = run_arm(run.arm, copy, repeat=1, is_signed=True, directory=directory)
        matches.append(again.is_stable and again.blocks == expected)
    return matches


def oracle_blocks(workload: Workload, count: int, *, is_signed: bool) -> tuple[BlockResult, ...]:
    """Execute the first `count` payloads with the specification's own Python."""
    import spec.oracle

    oracle: Any = spec.oracle  # its names come from Markdown

    accounts = [
        oracle.Account(key.tobytes(), int(balance))
        for key, balance in zip(workload.keys, workload.balances, strict=True)
    ]
    ledger = oracle.Ledger(
        chain_id=CHAIN_ID,
        fee_minimum=FEE_MINIMUM,
        account_minimum=ACCOUNT_MINIMUM,
        accounts_max=ACCOUNTS_MAX,
        domain=workload.transaction_domain,
        limits=oracle.Limits(bytes=1 << 40, transactions=1 << 30, objects=1 << 30),
    )
    blocks = []
    for height, payload in enumerate(workload.payloads[:count], start=1):
        executed = oracle.execute_payload(
            accounts, payload, ledger, height, workload.fee_recipient, verify=is_signed
        )
        accounts = executed.accounts
        blocks.append(
            BlockResult(
                statuses=blake3.blake3(bytes(executed.statuses)).digest(),
                receipts_hash=executed.receipts_hash,
                state_hash=executed.state_hash,
            )
        )
    return tuple(blocks)
