"""Make the golden vectors from the oracle: every file is a function of the specification alone."""

from dataclasses import asdict
from math import gcd
from typing import Any

from nacl.signing import SigningKey

from spec import oracle

GENESIS_HASH = bytes(range(32))
DOMAIN = oracle.transaction_domain(GENESIS_HASH)
CHAIN_ID = 7
FEE_RECIPIENT = b"\xfe" * 32
SIGNERS = [SigningKey(bytes([i]) * 32) for i in range(1, 5)]
KEYS = [bytes(signer.verify_key) for signer in SIGNERS]
LEDGER = oracle.Ledger(CHAIN_ID, fee_minimum=1, account_minimum=5, accounts_max=7, domain=DOMAIN)
WRAPPING = 2**64 - 52
STRANGER = b"\x11" * 32


def plain(value: Any) -> Any:
    """Return a value as JSON: bytes as hex, integers as text, so that every reader is exact."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value]


def signed(signer: int, nonce: int, amount: int, recipient: bytes, **more: Any) -> Any:
    """Return a transaction with a valid signature."""
    fields = {"fee": 1, "valid_until": 9, "chain_id": CHAIN_ID, "sender": KEYS[signer], **more}
    blank = oracle.Transaction(nonce=nonce, amount=amount, recipient=recipient, **fields)
    message = oracle.signed_message(blank, DOMAIN)
    return oracle.replace(blank, signature=SIGNERS[signer].sign(message).signature)


def addresses() -> list[Any]:
    """Keys and their text."""
    keys = [bytes(32), b"\xff" * 32, *KEYS]
    return [
        {"key": key, "prefix": "tos", "text": oracle.encode_address(key, "tos")} for key in keys
    ]


def transactions() -> list[Any]:
    """Records at the extremes, their hashes and what is signed."""
    top = 2**64 - 1
    made = [
        signed(0, 0, 10, KEYS[1]),
        signed(1, top, top, KEYS[1], fee=top, valid_until=top, memo=b"\xff" * 16),
        oracle.Transaction(2**32 - 1, 2**63, 2**31, 2**32, 0, bytes(32), b"\xff" * 32),
    ]
    return [
        {
            **asdict(t),
            "record": oracle.encode_transaction(t),
            "hash": oracle.transaction_hash(t),
            "signed_message": oracle.signed_message(t, DOMAIN),
        }
        for t in made
    ]


def payloads() -> list[Any]:
    """Payload bytes of several shapes with their commitments."""
    shapes = [[], [[signed(0, 0, 1, KEYS[1])]]]
    shapes.append([[signed(0, n, n, KEYS[1]) for n in range(3)], [signed(2, 0, 9, KEYS[0])]])
    return [
        {
            "lanes": [[oracle.encode_transaction(t) for t in lane] for lane in lanes],
            "payload": oracle.encode_payload(lanes),
            "payload_commitment": oracle.payload_commitment(oracle.encode_payload(lanes)),
            "transactions_root": oracle.transactions_root(lanes),
        }
        for lanes in shapes
    ]


def opening() -> list[Any]:
    """The accounts before each block."""
    return [oracle.Account(key, 1000) for key in KEYS[:3]] + [oracle.Account(KEYS[3], 105)]


def block(name: str, payload: bytes, height: int = 1) -> dict[str, Any]:
    """Execute a payload on the opening accounts; tell everything of the outcome."""
    case = {"name": name, "height": height, "payload": payload, "before": records(opening())}
    try:
        done = oracle.execute_payload(opening(), payload, LEDGER, height, FEE_RECIPIENT)
    except oracle.Invalid as refusal:
        return {**case, "reason": refusal.reason, "position": refusal.position}
    fields = ("statuses", "transactions_root", "receipts_hash", "state_hash")
    outcome = {field: getattr(done, field) for field in fields}
    made = header(payload, done, height)
    named = {"header": made, "block_hash": oracle.block_hash(made)}
    return {**case, **outcome, "after": records(done.accounts), **named}


def header(payload: bytes, done: Any, height: int) -> bytes:
    """Return the header of a block on genesis, proposed and decided by the first signer alone."""
    return bytes(
        oracle.encode_header(
            {
                "version": 1,
                "chain_id": CHAIN_ID,
                "height": height,
                "parent_hash": GENESIS_HASH,
                "timestamp_ms": 1_700_000_000_000 + height,
                "proposer": KEYS[0],
                "fee_recipient": FEE_RECIPIENT,
                "validator_set_id": oracle.validator_set_id([(KEYS[0], 1)]),
                "payload_commitment": oracle.payload_commitment(payload),
                "payload_bytes": len(payload),
                "transaction_count": len(done.statuses),
                "transactions_root": done.transactions_root,
                "state_hash": done.state_hash,
                "receipts_hash": done.receipts_hash,
            }
        )
    )


def records(made: list[Any]) -> list[bytes]:
    """Return account records."""
    return [oracle.account_record(a) for a in made]


def blocks() -> list[Any]:
    """Payloads that execute: each status, new accounts, wrapping costs, self-payment, none."""
    lanes = {
        "empty": [],
        "one transfer": [[signed(0, 0, 10, KEYS[1])]],
        "to itself": [[signed(0, 0, 10, KEYS[0])]],
        "new account, twice paid": [
            [signed(0, 0, 10, STRANGER), signed(0, 1, 3, STRANGER)],
            [signed(1, 0, 7, STRANGER)],
        ],
        "more than spendable": [[signed(0, 0, 995, KEYS[1]), signed(0, 1, 994, KEYS[1])]],
        "costs that wrap 2^64": [
            [signed(3, n, amount, KEYS[0]) for n, amount in enumerate([50, WRAPPING, 40])]
        ],
    }
    return [block(name, oracle.encode_payload(made)) for name, made in lanes.items()]


def refused() -> list[Any]:
    """One payload per reason of the transaction phase and of the encoding phase."""
    good = signed(0, 0, 10, KEYS[1])
    lanes = {
        "version": [[signed(0, 0, 1, KEYS[1], version=2)]],
        "kind": [[signed(0, 0, 1, KEYS[1], kind=1)]],
        "chain id": [[signed(0, 0, 1, KEYS[1], chain_id=8)]],
        "expired": [[signed(0, 0, 1, KEYS[1], valid_until=0)]],
        "splittable": [[good, signed(1, 0, 1, KEYS[0])]],
        "unknown sender": [[oracle.replace(good, sender=STRANGER)]],
        "mergeable": [[good], [signed(0, 1, 1, KEYS[1])]],
        "nonce": [[signed(0, 1, 1, KEYS[1])]],
        "fee below minimum": [[signed(0, 0, 1, KEYS[1], fee=0)]],
        "fee above spendable": [[signed(0, 0, 1, KEYS[1], fee=996)]],
        "signature": [[good, oracle.replace(signed(0, 1, 1, KEYS[1]), amount=2)]],
        "accounts exceeded": [
            [signed(0, n, 5, bytes([n]) * 32) for n in range(3)],
        ],
    }
    cases = [block(name, oracle.encode_payload(made)) for name, made in lanes.items()]
    valid = oracle.encode_payload([[good], [signed(1, 0, 1, KEYS[0])]])
    offsets = oracle.PAYLOAD_HEAD_BYTES
    edits: dict[str, bytes] = {
        "too short": valid[:63],
        "magic": b"X" + valid[1:],
        "payload version": edited(valid, 8, 2),
        "head reserved": edited(valid, 63, 1),
        "limits": edited(valid, 15, 1),
        "length": valid + bytes(64),
        "offsets": edited(valid, offsets, 1),
        "empty lane": edited(valid, offsets + 4, 0),
        "padding": edited(valid, offsets + 63, 1),
    }
    return cases + [block(name, data) for name, data in edits.items()]


def edited(data: bytes, place: int, value: int) -> bytes:
    """Return data with one byte replaced."""
    return data[:place] + bytes([value]) + data[place + 1 :]


def keys() -> list[Any]:
    """Who may be a validator or a peer: good keys, and each way of being none."""
    seeds = (bytes([n]) * 32 for n in range(1, 200))
    points = (oracle.ed_decode(seed) for seed in seeds)
    parts = (oracle.ed_multiply(oracle.ED_L, point) for point in points if point is not None)
    half = oracle.uint(oracle.ED_P - 1, 32)  # the point of order two
    twist = next(p for p in parts if oracle.ed_encode(oracle.ed_multiply(4, p)) == half)
    torsion = [oracle.ed_multiply(n, twist) for n in range(8)]
    order = [8 // gcd(n, 8) for n in range(8)]
    good = oracle.ed_decode(KEYS[0])
    made = [("prime order", key) for key in KEYS]
    made += [(f"order {n}", oracle.ed_encode(p)) for n, p in zip(order, torsion, strict=True)]
    made += [
        (f"prime order and order {n}", oracle.ed_encode(oracle.ed_add(good, p)))
        for n, p in zip(order[1:], torsion[1:], strict=True)
    ]
    sign, low = 1 << 255, [y for y in range(19) if oracle.ed_x(y, 0) is not None]
    made += [
        (f"y is p + {y}", oracle.uint(oracle.ED_P + y | s, 32)) for y in low for s in (0, sign)
    ]
    made += [
        (f"x is 0, y is {y}, the sign set", oracle.uint(y | sign, 32)) for y in (1, oracle.ED_P - 1)
    ]
    off = [y for y in range(2, 40) if oracle.ed_x(y, 0) is None][:3]
    made += [(f"no point has the y {y}", oracle.uint(y, 32)) for y in off]
    made += [("all bits set", b"\xff" * 32)]
    return [{"name": n, "key": key, "valid": oracle.is_public_key(key)} for n, key in made]


def signatures() -> list[Any]:
    """Signatures at the edges: small order, torsion, non-canonical, S out of range."""
    message = b"message"
    key, signature = KEYS[0], SIGNERS[0].sign(message).signature
    s = int.from_bytes(signature[32:], "little")
    ys = [oracle.uint(y, 32) for y in (0, 1, oracle.ED_P - 1, oracle.ED_P, oracle.ED_P + 1)]
    edges = (0, 1, oracle.ED_L - 1, oracle.ED_L, oracle.ED_L + 1, s + oracle.ED_L, 2**256 - 1)
    x = oracle.ed_x(0, 0)
    tangled = oracle.ed_add(oracle.ed_decode(key), (x, 0, 1, 0))
    cases = [(key, signature), (oracle.ed_encode(tangled), signature)]
    cases += [(y, signature) for y in ys] + [(key, y + signature[32:]) for y in ys]
    cases += [(key, signature[:32] + oracle.uint(edge, 32)) for edge in edges]
    return [
        {
            "public_key": a,
            "signature": b,
            "message": message,
            "valid": oracle.is_valid_signature(a, b, message),
        }
        for a, b in cases
    ]


def consensus() -> list[Any]:
    """What votes sign and how they travel: every kind, small and large numbers, certificates."""
    top = 2**64 - 1
    order = sorted(range(4), key=KEYS.__getitem__)
    validators = [(KEYS[i], power) for i, power in zip(order, (1, 2, 3, 4), strict=True)]
    set_id = oracle.validator_set_id(validators)
    header = oracle.block_hash(oracle.encode_header({"version": 1, "height": 5}))
    cases = []
    for epoch, view, parent_view in ((0, 1, 0), (3, 77, 75), (top, top, top - 1)):
        pid = oracle.proposal_id(epoch, view, parent_view, header)
        for kind in (oracle.NOTARIZE, oracle.NULLIFY, oracle.FINALIZE):
            named = bytes(32) if kind == oracle.NULLIFY else pid
            message = oracle.vote_message(GENESIS_HASH, kind, epoch, set_id, view, named)
            signatures = [SIGNERS[order[i]].sign(message).signature for i in (0, 2, 3)]
            is_nullify = kind == oracle.NULLIFY
            cases.append(
                {
                    "kind": kind,
                    "epoch": epoch,
                    "view": view,
                    "parent_view": parent_view,
                    "block_hash": header,
                    "genesis_hash": GENESIS_HASH,
                    "validators": [[key, power] for key, power in validators],
                    "validator_set_id": set_id,
                    "quorum": oracle.quorum([power for _, power in validators]),
                    "pid": named,
                    "signed_message": message,
                    "leader": oracle.leader_index(
                        GENESIS_HASH, epoch, view, GENESIS_HASH, [power for _, power in validators]
                    ),
                    "vote": b"\1" + oracle.encode_vote(kind, epoch, view, named, 3, signatures[2]),
                    "certificate": b"\3"
                    + oracle.encode_certificate(
                        kind,
                        epoch,
                        view,
                        0 if is_nullify else parent_view,
                        bytes(32) if is_nullify else header,
                        len(validators),
                        [0, 2, 3],
                        signatures,
                    ),
                    "valid": oracle.certificate_is_valid(
                        GENESIS_HASH, validators, kind, epoch, view, named, [0, 2, 3], signatures
                    ),
                }
            )
    return cases


def vectors() -> dict[str, Any]:
    """Return the content of every file by name."""
    made = (addresses, transactions, payloads, blocks, refused, keys, signatures, consensus)
    return {make.__name__: plain(make()) for make in made}
