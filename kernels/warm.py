"""Compile the kernels before anybody waits for them: `python -m kernels.warm`.

`make venv` runs this, and so does an executor that finds it undone. Compiled code stays (see
`jit`), so a second run takes well under a second; of several at once one compiles, the others wait.
The work is a block of a few made-up transfers: what they come to does not matter here, only that
each kernel is called with the types that blocks bring.
"""

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from kernels import jit, marks, outcomes, pending, pending_order, pending_rows, processor, sorting
from kernels.backend import (
    Backend,
    BackendName,
    DeviceSettings,
    DeviceUnavailable,
    open_backend,
)
from kernels.host_accounts import key_words, read_only
from kernels.insecure_signer import insecure_public_keys, insecure_sign
from kernels.layout import Columns, Rules

COUNT = 32
"""Transactions of the made-up block: two full groups of the widest vector form."""

RULES = Rules(chain_id=1, height=1, fee_minimum=1, account_minimum=1, accounts_max=1024)
KEY = bytes(range(32))
THE_REST = "the-rest"
ARMS: tuple[BackendName, ...] = ("serial", "cpu", "gpu")
"""Whose kernels are compiled; those of the last only where there is a device."""
DEVICE = DeviceSettings(crossover_transactions=1, crossover_signatures=1, check_blocks=0)


def made_up_columns() -> Columns:
    """Return COUNT transfers, one per lane, from accounts 0.. to accounts that do not exist."""
    sender = np.zeros((COUNT, 32), np.uint8)
    sender[:, 0] = np.arange(COUNT)
    recipient = sender.copy()
    recipient[:, 1] = 1
    ones = np.ones(COUNT, np.uint64)
    return Columns(
        version=np.ones(COUNT, np.uint8),
        kind=np.zeros(COUNT, np.uint8),
        chain_id=np.full(COUNT, RULES.chain_id, np.uint32),
        nonce=np.zeros(COUNT, np.uint64),
        valid_until=ones,
        amount=ones,
        fee=ones,
        memo=np.zeros((COUNT, 16), np.uint8),
        sender=sender,
        recipient=recipient,
        signature=np.zeros((COUNT, 64), np.uint8),
    )


def exercise(backend: Backend) -> None:
    """Call everything that a block needs, once, on `backend`."""
    columns = made_up_columns()
    hashes = backend.hash_transactions(columns)
    statuses = np.zeros(COUNT, np.uint8)
    leaves = backend.hash_receipts(hashes, statuses, columns.kind, columns.fee, KEY)
    backend.list_root(leaves, KEY, bytes(32))
    messages = np.zeros((COUNT, 160), np.uint8)
    backend.hash_messages(messages)
    backend.verify_signatures(columns.sender, columns.signature, messages)
    backend.verify_transactions(columns, np.arange(COUNT, dtype=np.int32), KEY)
    balances = np.full(COUNT, 100, np.uint64)
    nonces = np.zeros(COUNT, np.uint64)
    accounts = backend.open_accounts(columns.sender, balances, nonces, leaf_key=KEY, node_key=KEY)
    offsets = np.arange(COUNT + 1, dtype=np.int32)
    senders, recipients = accounts.find_parties(columns, offsets)
    walk = accounts.walk(columns, offsets, senders, recipients, RULES)
    changes = accounts.settle(columns, offsets, senders, recipients, walk, KEY, RULES)
    assert changes is not None, "the made-up block stays below its maximum of accounts"
    accounts.update_tree(changes)
    accounts.root()
    accounts.undo(changes)
    accounts.update_tree_slots(changes.slots, changes.count_after, accounts.count)
    accounts.redo(changes)
    accounts.update_tree_slots(changes.slots, changes.count_before, accounts.count)


def exercise_marks() -> None:
    """Put hashes into a set of marks and find them."""
    tags, kept = np.zeros((8, marks.WAYS), np.uint64), np.zeros((8 * marks.WAYS, 4), np.uint64)
    secret = read_only(np.arange(8, dtype=np.uint64))
    hashes = key_words(made_up_columns().sender)
    marks.put_marks(tags, kept, np.zeros(8, np.uint8), secret, hashes)
    marks.find_marks(tags, kept, secret, hashes, np.zeros(COUNT, np.uint8), 0, COUNT)


def exercise_pool() -> None:
    """Take transactions in, choose from them, let them go, and write down what they came to."""
    columns = made_up_columns()
    secret = read_only(np.arange(8, dtype=np.uint64))
    rows = pending_rows.open_pending(COUNT, secret)
    words = np.zeros((COUNT, pending_rows.RECORD_WORDS), np.uint64)
    words[:, 8:12] = key_words(columns.sender)
    words = read_only(words)
    hashes, keys = key_words(columns.recipient), key_words(columns.sender)
    ones, codes = read_only(np.ones(COUNT, np.uint64)), np.zeros(COUNT, np.uint8)
    pair, replaced = np.zeros((1, 4), np.uint64), np.zeros((COUNT, 4), np.uint64)
    nonces = read_only(np.zeros(COUNT, np.uint64))
    pending.admit(rows, words, hashes, keys, ones, nonces, False, pair, codes, replaced)
    pending.update_accounts(rows, keys, read_only(np.ones(COUNT, np.uint8)), ones, nonces)
    pending.settle_touched(rows, True)
    chosen, lanes = np.arange(COUNT), np.zeros(COUNT, np.int32)
    copied = np.empty((COUNT, pending_rows.RECORD_WORDS), np.uint64)
    pending_order.gather(rows, chosen, copied, 0, COUNT)
    pending_order.find_lanes(rows, chosen, lanes, chosen.copy(), np.zeros(COUNT, np.int32))
    pending_order.list_ready(rows, chosen, np.empty(COUNT, np.int64))
    is_kept, is_open = np.zeros(COUNT, np.uint8), np.ones(COUNT, np.uint8)
    limits, widths = np.full(6, 2**40, np.uint64), read_only(np.ones(11, np.int64))
    pending_order.judge(
        *(copied, lanes, nonces.copy(), ones.copy(), is_open, np.zeros(COUNT, np.uint8)),
        *(limits, widths, is_kept),
    )
    offsets = np.zeros(COUNT + 1, np.int32)
    pending_order.arrange(lanes, COUNT, is_kept, np.zeros(COUNT, np.int64), offsets)
    found = np.empty(COUNT, np.uint32)
    pending_rows.find_rows(rows, hashes, found)
    pending.drop_rows(rows, found, np.uint8(1))
    entries, statuses = np.zeros(64, np.uint64), np.zeros(8, np.uint8)
    outcomes.put_outcomes(
        *(entries, replaced[:8], statuses, statuses.copy(), np.zeros(8, np.int64), secret),
        *(0, hashes[:4], np.uint8(1), np.zeros(4, np.uint8), np.int64(0)),
    )


def exercise_sorting() -> None:
    """Put words in order."""
    words = np.arange(sorting.FEW, dtype=np.uint64)
    sorting.merge((sorting.sort(words), words), (words, words[sorting.argsort(words)]))


def is_warm() -> bool:
    """Say whether everything is compiled, or cannot be compiled ahead as nothing can be kept."""
    return not jit.is_kept() or jit.compiled_mark().exists()


def exercise_arms() -> bool:
    """Compile for all arms; return whether none is left that a later start could bring.

    A device may be found later where its packages are installed. Whoever wants it is told why there
    is none; here it is no error.
    """
    is_whole = True
    for name in ARMS:
        try:
            backend = open_backend(name, device=DEVICE)
        except DeviceUnavailable:
            is_whole = not jit.device_packages()
            continue
        try:
            exercise(backend)
        finally:
            backend.close()
    return is_whole


def exercise_the_rest() -> None:
    """Compile what no arm needs."""
    exercise_marks()
    exercise_pool()
    exercise_sorting()
    seeds = np.zeros((COUNT, 32), np.uint8)
    insecure_sign(seeds, insecure_public_keys(seeds), np.zeros((COUNT, 160), np.uint8))


def end_with_parent() -> None:
    """End this process when the one that started it is gone, and with it the pipe to its input."""
    os.read(sys.stdin.fileno(), 1)  # not `sys.stdin.read`, whose lock the end would wait for
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Compile everything, in two processes side by side, and say what is going on."""
    if not __debug__:
        sys.stderr.write("kernels.warm: python -O removes checks that must run; start without -O\n")
        return 2
    if arguments == [THE_REST]:
        threading.Thread(target=end_with_parent, daemon=True).start()
        exercise_the_rest()
        return 0
    if arguments:
        sys.stderr.write(f"kernels.warm: takes no arguments, was given {arguments}\n")
        return 2
    if not jit.is_kept():
        sys.stderr.write("kernels.warm: nothing is compiled ahead, as it could not be kept\n")
        return 0
    sys.stdout.write(
        f"compiling kernels for {processor.cpu_name()} into {jit.CONFIG.CACHE_DIR}"
        " (once per machine and version, up to a minute) ...\n"
    )
    sys.stdout.flush()
    start = time.monotonic_ns()
    with Path(jit.CONFIG.CACHE_DIR, "compiling").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (is_warm() or compile_all()):
            return 1
    sys.stdout.write(f"kernels are ready ({(time.monotonic_ns() - start) // 1_000_000} ms)\n")
    return 0


def compile_all() -> bool:
    """Compile in two processes, as the compiler takes one core each; return whether both could.

    What both of them need, either compiles, with the same result.
    """
    command = [sys.executable, "-m", "kernels.warm", THE_REST]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as beside:
        is_whole = exercise_arms()
        beside.wait()  # here, as leaving closes its input first
    if beside.returncode:
        sys.stderr.write(f"kernels.warm: the process beside it ended with {beside.returncode}\n")
    elif is_whole:
        jit.compiled_mark().touch()
    return not beside.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
