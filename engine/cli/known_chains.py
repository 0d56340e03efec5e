"""What a wallet knows of chains: the meaning of an amount does not change with the node it asks.

A signature covers the genesis hash, which covers decimals, symbol, prefix and least fee; but the
wallet has the hash alone and reads the rest from a node. One that lied about the decimals would
make a payment of 25 another amount. So the wallet writes down what the first node said of a chain
that it paid on, in `chains` beside its keys, and refuses a node that says other things later. The
first one is believed: it should be a node of one's own.
"""

import secrets
from pathlib import Path

import msgspec

from engine.client import NodeError
from engine.queries.answers import ChainId, Decimals, Digits, Hash, Prefix, Status, Symbol
from runtime.decoding import decodable
from runtime.durable import write_file

FILE_NAME = "chains"
"""Without the suffix of keys."""
CHAINS_MAX = 256
"""Chains that are known; the one that was met first is forgotten."""
FILE_BYTES_MAX = 2**18


@decodable
class KnownChain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What genesis fixed and a wallet relies on; names as in `Status`."""

    genesis_hash: Hash
    chain_id: ChainId
    address_prefix: Prefix
    symbol: Symbol
    decimals: Decimals
    account_minimum: Digits
    fee_minimum: Digits


@decodable
class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    chains: list[KnownChain]


def check_chain(keys: Path, status: Status, url: str) -> str:
    """Compare what a node says of its chain with what is known, or write it down.

    keys: the folder of the keys. Returns why it could not be written down, or nothing. Raises
    NodeError for a node that says other things, or a file that cannot be read.
    """
    said = KnownChain(**{name: getattr(status, name) for name in KnownChain.__struct_fields__})
    path = keys.joinpath(FILE_NAME)
    chains = _read(path)
    for known in chains:
        if known.genesis_hash == said.genesis_hash:
            if known != said:
                raise _differs(known, said, path, url)
            return ""
    file = _File(chains=[*chains, said][-CHAINS_MAX:])
    data = msgspec.json.format(msgspec.json.encode(file)) + b"\n"
    try:
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(path, [data], suffix=f".{secrets.token_hex(4)}.part")
    except OSError as error:
        return f"what the node says of its chain is not kept for the next time: {error}"
    return ""


def _read(path: Path) -> list[KnownChain]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        return msgspec.json.decode(data, type=_File).chains
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NodeError(
            "wallet.chains",
            what="what is known of chains cannot be read",
            where=str(path),
            why=str(error),
            what_to_do="remove the file, and ask a node that you trust first",
        ) from error


def _differs(known: KnownChain, said: KnownChain, path: Path, url: str) -> NodeError:
    names = [
        name for name in known.__struct_fields__ if getattr(known, name) != getattr(said, name)
    ]
    return NodeError(
        "wallet.chain_differs",
        what="the node says other things of this chain than one before: "
        + ", ".join(f"{name} {getattr(said, name)}, not {getattr(known, name)}" for name in names),
        where=url,
        why=f"they are fixed by the genesis hash, and stand in {path}",
        what_to_do="ask a node that you trust; if it is the first one that lied, remove the file",
    )
