"""What the signature of a transaction signs, straight from the columns: 160 bytes, 20 words.

The domain of the chain, then the first 128 bytes of the record. Spec:
spec/transaction.md#what-is-signed.
"""

from typing import Any, Final

import numpy as np

from kernels.host_accounts import key_words, read_only
from kernels.integers import ZERO, leaf
from kernels.jit import njit
from kernels.layout import I32, U8, U64, Columns
from kernels.pool import Pool

DOMAIN_BYTES: Final = 32
MESSAGE_WORDS: Final = 20
GRAIN: Final = 8_192
"""Messages below which another thread costs more than it brings."""
_KIND_SHIFT: Final = np.uint64(8)
_CHAIN_SHIFT: Final = np.uint64(32)


@leaf
def put_message(
    version: Any, kind: Any, chain_id: Any, nonce: Any, valid_until: Any, amount: Any, fee: Any,
    memo: Any, sender: Any, recipient: Any, domain: Any, row: Any, messages: Any, i: Any,
) -> None:  # fmt: skip
    """Write what transaction `row` signs to row i of messages, (m, 20) uint64.

    memo: (n, 2), sender, recipient: (n, 4), domain: (4,) uint64; others as in `Columns`.
    """
    for word in range(4):
        messages[i, word] = domain[word]
        messages[i, 12 + word] = sender[row, word]
        messages[i, 16 + word] = recipient[row, word]
    first = np.uint64(version[row]) | (np.uint64(kind[row]) << _KIND_SHIFT)
    messages[i, 4] = first | (np.uint64(chain_id[row]) << _CHAIN_SHIFT)
    messages[i, 5] = nonce[row]
    messages[i, 6] = valid_until[row]
    messages[i, 7] = amount[row]
    messages[i, 8] = fee[row]
    messages[i, 9] = ZERO
    messages[i, 10] = memo[row, 0]
    messages[i, 11] = memo[row, 1]


@njit
def _put_range(
    version: Any, kind: Any, chain_id: Any, nonce: Any, valid_until: Any, amount: Any, fee: Any,
    memo: Any, sender: Any, recipient: Any, domain: Any, rows: Any, messages: Any, start: int,
    stop: int,
) -> None:  # fmt: skip
    for i in range(start, stop):
        put_message(
            version, kind, chain_id, nonce, valid_until, amount, fee, memo, sender, recipient,
            domain, np.int64(rows[i]), messages, i,
        )  # fmt: skip


def domain_words(domain: bytes) -> U64:
    """Return the 32 bytes of a domain as (4,) uint64."""
    assert len(domain) == DOMAIN_BYTES, len(domain)
    return read_only(np.frombuffer(domain, np.uint64))


def signed_messages(columns: Columns, rows: I32, domain: bytes, pool: Pool) -> U8:
    """Return what the signatures of transactions rows, (m,) int32, sign: (m, 160) uint8."""
    numbers = (read_only(column) for column in columns[:7])
    memo = read_only(read_only(columns.memo).view(np.uint64))
    parties = (key_words(columns.sender), key_words(columns.recipient))
    messages = np.empty((len(rows), MESSAGE_WORDS), np.uint64)
    pool.run(
        _put_range, pool.ranges(len(rows), grain=GRAIN), *numbers, memo, *parties,
        domain_words(domain), read_only(rows), messages,
    )  # fmt: skip
    return messages.view(np.uint8)
