"""The oracle beside the arms: the same workload, cut to what plain Python can do.

The specification executes a few hundred transactions a second, so the comparison runs on a small
copy of the workload: same pattern, same seed, fewer accounts and transactions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3

from bench.arms import ACCOUNTS_MAX, Arm, BlockResult, run_arm
from bench.blocks import CHAIN_ID, Workload
from bench.workloads import ACCOUNT_MINIMUM, FEE_MINIMUM

CHECK_ACCOUNTS = 2000
CHECK_TRANSACTIONS = 200
CHECK_BLOCKS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether an arm gave the oracle's statuses and hashes on every block."""

    arm: Arm
    is_match: bool


def check_arms(
    arms: list[Arm], workload: Workload, *, is_signed: bool, directory: Path
) -> list[Verdict]:
    """Run the oracle and every arm over the small `workload`."""
    expected = oracle_blocks(workload, is_signed=is_signed)
    verdicts = []
    for arm in arms:
        run = run_arm(arm, workload, repeat=1, is_signed=is_signed, directory=directory)
        verdicts.append(Verdict(arm=arm, is_match=run.is_stable and run.blocks == expected))
    return verdicts


def oracle_blocks(workload: Workload, *, is_signed: bool) -> tuple[BlockResult, ...]:
    """Execute the payloads with the specification's own Python."""
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
    )
    blocks = []
    for height, payload in enumerate(workload.payloads, start=1):
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
