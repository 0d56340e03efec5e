"""What the whole network must agree on and no genesis can change: sizes, limits, hash domains.

A value that one node may choose for itself belongs into `config.py`, one that a chain may choose
into `genesis.py`. Derived values are computed here, related ones asserted at the end.
"""

from blake3 import blake3

from engine.types import Hash32


def derive_key(context: str, data: bytes | memoryview) -> Hash32:
    """Return BLAKE3 in derive-key mode: for what is hashed once, under a context of its own."""
    return Hash32(blake3(data, derive_key_context=context).digest())


def context_key(context: str) -> bytes:
    """Return the 32-byte key of a context for BLAKE3's keyed mode: for what is hashed in bulk."""
    return derive_key(context, b"")


def keyed(key: bytes, data: bytes) -> Hash32:
    """Return BLAKE3 in keyed mode: one leaf or node, where kernels would hash many."""
    return Hash32(blake3(data, key=key).digest())


# Contexts: BLAKE3 derive-key mode, one per thing that is hashed once.
HEADER_CONTEXT = "tos header v1"
GENESIS_CONTEXT = "tos genesis v1"
GENESIS_ACCOUNTS_CONTEXT = "tos genesis accounts v1"
PARAMETERS_CONTEXT = "tos parameters v1"
VALIDATOR_SET_CONTEXT = "tos validator set v1"
TRANSACTION_CONTEXT = "tos transaction v1"
STATE_CONTEXT = "tos state v1"
TRANSACTIONS_CONTEXT = "tos transactions v1"
LANES_CONTEXT = "tos lanes v1"
RECEIPTS_CONTEXT = "tos receipts v1"
PAYLOAD_CONTEXT = "tos payload v1"
GOSSIP_CONTEXT = "tos gossip v1"

# Keys: BLAKE3 keyed mode, for what is hashed in bulk. A leaf is never taken for a node.
ACCOUNT_LEAF_CONTEXT = "tos account leaf v1"
ACCOUNT_NODE_CONTEXT = "tos account node v1"
TRANSACTION_NODE_CONTEXT = "tos transaction node v1"
RECEIPT_LEAF_CONTEXT = "tos receipt leaf v1"
RECEIPT_NODE_CONTEXT = "tos receipt node v1"
PAYLOAD_CHUNK_CONTEXT = "tos payload chunk v1"
PAYLOAD_NODE_CONTEXT = "tos payload node v1"

ACCOUNT_LEAF_KEY = context_key(ACCOUNT_LEAF_CONTEXT)
ACCOUNT_NODE_KEY = context_key(ACCOUNT_NODE_CONTEXT)
TRANSACTION_NODE_KEY = context_key(TRANSACTION_NODE_CONTEXT)
RECEIPT_LEAF_KEY = context_key(RECEIPT_LEAF_CONTEXT)
RECEIPT_NODE_KEY = context_key(RECEIPT_NODE_CONTEXT)
PAYLOAD_CHUNK_KEY = context_key(PAYLOAD_CHUNK_CONTEXT)
PAYLOAD_NODE_KEY = context_key(PAYLOAD_NODE_CONTEXT)

HASH_BYTES = 32
KEY_BYTES = 32

# Transactions, see spec/transaction.md#layout
TRANSACTION_VERSION = 1
TRANSFER = 0
TRANSACTION_BYTES = 192
SIGNED_BYTES = 128
"""of a record; the rest is the signature"""
DOMAIN_BYTES = HASH_BYTES
MESSAGE_BYTES = DOMAIN_BYTES + SIGNED_BYTES
"""what a transaction's signature signs: domain, then the signed bytes of the record"""
SIGNATURE_BYTES = 64
MEMO_BYTES = 16
NONCE_MAX = 2**64 - 2
"""a nonce of 2^64 - 1 is never includable, so the next nonce always fits"""

# Payloads, see spec/payload.md#layout
PAYLOAD_MAGIC = b"TOSPAYLD"
PAYLOAD_VERSION = 1
PAYLOAD_HEAD_BYTES = 64
PAYLOAD_ALIGNMENT_BYTES = 64
PAYLOAD_CHUNK_BYTES = 2**18

# Headers, see spec/block.md#header
HEADER_VERSION = 1
HEADER_BYTES = 400
STATE_VERSION = 1

# State, see spec/state_hash.md#records
ACCOUNT_BYTES = 64
ACCOUNT_COUNT_MAX = 2**32 - 2
"""the largest `accounts_max`; two slot numbers are left over to mean no account"""
SUPPLY_MAX = 2**63 - 1
"""base units"""

# Genesis, see spec/genesis.md
GENESIS_VERSION = 1
GENESIS_INLINE_ACCOUNTS_MAX = 10_000
"""accounts that the JSON itself may list; more stand in a file beside it"""
ADDRESS_PREFIX_DEFAULT = "tos"
ADDRESS_PREFIX_BYTES_MAX = 16
SYMBOL_BYTES_MAX = 16
DECIMALS_MAX = 18
VALIDATOR_COUNT_MAX = 1_024
"""of one epoch"""
SCHEDULE_COUNT_MAX = 4_096
"""entries of a validator schedule, the set of epoch 0 included"""

assert SIGNED_BYTES + SIGNATURE_BYTES == TRANSACTION_BYTES
assert TRANSACTION_BYTES % 64 == 0, "BLAKE3 compresses blocks of 64 bytes"
assert MESSAGE_BYTES == 160
assert PAYLOAD_HEAD_BYTES % PAYLOAD_ALIGNMENT_BYTES == 0
assert PAYLOAD_CHUNK_BYTES % PAYLOAD_ALIGNMENT_BYTES == 0
assert ACCOUNT_COUNT_MAX < 2**32 - 1
assert 10**DECIMALS_MAX <= SUPPLY_MAX, "one whole unit must be payable"
assert NONCE_MAX + 1 < 2**64
