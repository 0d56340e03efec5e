"""What signatures of a block's transactions sign, and the rows beside it, gathered on a device.

Spec: spec/transaction.md#what-is-signed.
"""

from typing import Any

import numpy as np
from numba import cuda

from kernels.gpu.grid import kernel
from kernels.signed_message import put_message


@kernel
def gather_signed(
    version: Any, kind: Any, chain_id: Any, nonce: Any, valid_until: Any, amount: Any, fee: Any,
    memo: Any, sender: Any, recipient: Any, signature: Any, domain: Any, rows: Any,
    keys: Any, signatures: Any, messages: Any,
) -> None:  # fmt: skip
    """Write key, signature and message of transactions rows, (m,) int32, one behind the other.

    Columns as in `hashes.hash_transactions`, domain: (4,) uint64; keys: (m, 4), signatures: (m, 8),
    messages: (m, 20) uint64.
    """
    i = cuda.grid(1)
    if i < rows.shape[0]:
        row = np.int64(rows[i])
        put_message(
            version, kind, chain_id, nonce, valid_until, amount, fee, memo, sender, recipient,
            domain, row, messages, i,
        )  # fmt: skip
        for word in range(4):
            keys[i, word] = sender[row, word]
        for word in range(8):
            signatures[i, word] = signature[row, word]
