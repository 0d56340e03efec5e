"""Commands of a wallet: keys on this machine, and questions to a node at `--url`."""

import json
import secrets
from pathlib import Path
from typing import Any

import click
import msgspec

from engine.address import decode_address, encode_address, is_prefix
from engine.amounts import format_amount, parse_amount
from engine.cli.known_chains import check_chain
from engine.cli.options import keys_option, url_option
from engine.cli.paying import MaybeSent, hand_over, minimum_fee
from engine.client import Client, NodeError
from engine.constants import ADDRESS_PREFIX_DEFAULT
from engine.errors import AddressError
from engine.queries import answers
from engine.signing import transaction_hash
from runtime.command_line import FILE, ExitCode, json_option, print_json
from runtime.keypair import SEED_BYTES
from runtime.keystore import KeyEntry, Keystore
from runtime.secrets import new_password, password_of, read_seed

at_option = click.option(
    "--at",
    type=click.Choice(["finalized", "safe", "head"]),
    default="finalized",
    show_default=True,
    help="the block to look at",
)


def _check_prefix(_: click.Context, __: click.Parameter, value: str) -> str:
    """Return a prefix that addresses can have."""
    if not is_prefix(value):
        raise click.BadParameter(f"{value!r} is not a letter and then small letters and digits")
    return value


prefix_option = click.option(
    "--prefix",
    default=ADDRESS_PREFIX_DEFAULT,
    show_default=True,
    callback=_check_prefix,
    help="of the chain's addresses",
)
proof_option = click.option(
    "--proof",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="write the answer with its proof there, for python -m spec.verify FILE",
)


@click.group()
def key() -> None:
    """Keys on this machine: a file each, sealed by a password."""


@key.command("new")
@click.option("--name", required=True, help="small letters and digits")
@click.option("--no-password", is_flag=True, help="for chains that are worth nothing")
@prefix_option
@keys_option
@json_option
def new(name: str, no_password: bool, prefix: str, keys: Path, is_json: bool) -> None:
    """Make a key and print its address."""
    password = None if no_password else new_password()
    entry = Keystore(keys).add(name, secrets.token_bytes(SEED_BYTES), password)
    show_key(entry, prefix, is_json)


@key.command("import")
@click.option("--name", required=True, help="small letters and digits")
@click.option("--seed-file", type=FILE, required=True, help="with 64 hex digits")
@click.option("--no-password", is_flag=True, help="for chains that are worth nothing")
@prefix_option
@keys_option
@json_option
def import_key(
    name: str, seed_file: Path, no_password: bool, prefix: str, keys: Path, is_json: bool
) -> None:
    """Store a key whose seed stands in a file."""
    seed = read_seed(seed_file, "--seed-file")
    password = None if no_password else new_password()
    entry = Keystore(keys).add(name, seed, password)
    show_key(entry, prefix, is_json)


@key.command("show")
@click.argument("name")
@prefix_option
@keys_option
@json_option
def show(name: str, prefix: str, keys: Path, is_json: bool) -> None:
    """Print the address of a key, and where its file is; never the secret."""
    show_key(Keystore(keys).get(name), prefix, is_json)


@key.command("list")
@prefix_option
@keys_option
@json_option
def list_keys(prefix: str, keys: Path, is_json: bool) -> int:
    """Print all keys. Exit code 1 if a file holds none: stderr says which."""
    entries, damaged = Keystore(keys).entries()
    for error in damaged:
        click.echo(str(error), err=True)
    if is_json:
        print_json({"keys": [key_values(entry, prefix) for entry in entries]})
    else:
        for entry in entries:
            click.echo(f"{entry.name:12} {encode_address(entry.public_key, prefix)}")
        if not entries and not damaged:
            click.echo(f"no keys in {keys}; make one: python -m engine key new --name alice")
    return ExitCode.FAILED if damaged else ExitCode.OK


@click.command()
@click.option("--from", "sender", required=True, metavar="NAME", help="a key of yours")
@click.option("--to", "recipient", required=True, metavar="ADDRESS|NAME", help="whom to pay")
@click.option("--amount", required=True, help="in whole units: 12 or 0.5")
@click.option("--fee", help="in whole units; by default the chain's minimum, if that is little")
@click.option("--nonce", type=click.IntRange(0, 2**64 - 2), help="that of the account by default")
@click.option("--wait", type=click.Choice(["included", "finalized"]), help="until it is so far")
@click.option("--timeout-ms", type=click.IntRange(1), default=60_000, show_default=True)
@url_option
@keys_option
@json_option
def send(
    sender: str,
    recipient: str,
    amount: str,
    fee: str | None,
    nonce: int | None,
    wait: str | None,
    timeout_ms: int,
    url: str,
    keys: Path,
    is_json: bool,
) -> int:
    """Pay from a key of yours.

    Exit code 1 if it was sent and did not come to what was waited for, or if nobody knows whether
    it was sent; 2 if it was not sent.
    """
    store = Keystore(keys)
    with Client(url) as client:
        status = client.status()
        if not_kept := check_chain(keys, status, url):
            click.echo(not_kept, err=True)
        to = key_of(recipient, store, status.address_prefix)
        units = parse_amount(amount, status.decimals)
        if fee is None:
            fee_units = minimum_fee(status, units)
        else:
            fee_units = parse_amount(fee, status.decimals)
        entry = store.get(sender)
        pair = store.open(sender, password_of(entry))
        record = client.transfer(pair, to, units, fee=fee_units, nonce=nonce)
        name = transaction_hash(record).hex()
        try:
            hand_over(client, record)
        except MaybeSent as unclear:
            click.echo(str(unclear), err=True)
            return ExitCode.FAILED
        if wait is None:
            if is_json:
                print_json({"hash": name, "state": "pending"})
            else:
                click.echo(f"sent {name}\nwatch it: python -m engine transaction {name}")
            return ExitCode.OK
        try:
            found = client.wait(name, wait, timeout_ms)
        except (NodeError, KeyboardInterrupt) as error:
            # It is sent: whoever reads exit code 2 as "nothing was done" would pay twice.
            why = str(error) or "stopped by the user"
            click.echo(f"sent {name}, and then:\n{why}", err=True)
            return ExitCode.FAILED
    show_transaction(found, status, is_json)
    is_paid = found.receipt is not None and found.receipt.status == "SUCCESS"
    return ExitCode.OK if is_paid else ExitCode.FAILED


@click.command()
@click.argument("address", metavar="ADDRESS|NAME")
@at_option
@url_option
@keys_option
@json_option
def balance(address: str, at: Any, url: str, keys: Path, is_json: bool) -> None:
    """Print how much an account has."""
    with Client(url) as client:
        status = client.status()
        found = client.account(text_of(address, keys, status.address_prefix), at)
    if is_json:
        print_json({"balance": found.balance, "spendable": found.spendable, "at": at})
        return
    click.echo(f"{format_amount(int(found.balance), status.decimals)} {status.symbol}")


@click.command()
@click.argument("address", metavar="ADDRESS|NAME")
@at_option
@proof_option
@click.option("--history", type=click.IntRange(0, 100), default=0, metavar="N", help="payments")
@url_option
@keys_option
@json_option
def account(
    address: str, at: Any, proof: Path | None, history: int, url: str, keys: Path, is_json: bool
) -> None:
    """Print an account: balance, nonce, and its last payments."""
    with Client(url) as client:
        status = client.status()
        text = text_of(address, keys, status.address_prefix)
        found = client.account(text, at, is_proven=proof is not None)
        entries = client.history(text, limit=history).transactions if history else []
    if proof is not None:
        write_proof(proof, found)
    if is_json:
        page = {"history": msgspec.to_builtins(entries)} if history else {}
        print_json(msgspec.to_builtins(found) | page)
        return
    click.echo(f"address    {found.address}")
    for name in ("balance", "spendable"):
        units = format_amount(int(getattr(found, name)), status.decimals)
        click.echo(f"{name:10} {units} {status.symbol}")
    click.echo(f"nonce      {found.nonce}")
    click.echo(f"at         {at} block {found.block.height} {found.block.hash}")
    if not found.exists:
        click.echo("it does not exist yet: nobody has paid to it")
    for entry in entries:
        click.echo(history_line(entry, found.address, status))
    if proof is not None:
        click.echo(f"proof      {proof}; check it: python -m spec.verify {proof}")


@click.command()
@click.argument("name", metavar="HASH")
@proof_option
@url_option
@json_option
def transaction(name: str, proof: Path | None, url: str, is_json: bool) -> None:
    """Print where a transaction is, and what it came to."""
    with Client(url) as client:
        status = client.status()
        found = client.transaction(name, is_proven=proof is not None)
    if proof is not None:
        write_proof(proof, found)
    show_transaction(found, status, is_json)


@click.command()
@click.argument("name", metavar="HEIGHT|HASH|finalized|safe|head", default="finalized")
@url_option
@json_option
def block(name: str, url: str, is_json: bool) -> None:
    """Print the header of a block."""
    with Client(url) as client:
        found = msgspec.to_builtins(client.block(name))
    if is_json:
        print_json(found)
        return
    for field, value in found.items():
        click.echo(f"{field:24} {value}")


# What several commands share


def key_values(entry: KeyEntry, prefix: str) -> dict[str, Any]:
    """Return a key for programs."""
    return {
        "name": entry.name,
        "address": encode_address(entry.public_key, prefix),
        "public_key": entry.public_key.hex(),
        "has_password": entry.has_password,
        "file": str(entry.path),
    }


def show_key(entry: KeyEntry, prefix: str, is_json: bool) -> None:
    """Print a key."""
    values = key_values(entry, prefix)
    if is_json:
        print_json(values)
        return
    click.echo(f"{entry.name}  {values['address']}")
    click.echo(f"  in {entry.path}" + ("" if entry.has_password else ", without a password"))


def key_of(text: str, store: Keystore, prefix: str) -> bytes:
    """Return the key of an address, or of a name in the keystore."""
    if text in store.names():
        return store.get(text).public_key
    try:
        return decode_address(text, prefix)
    except AddressError as error:
        raise NodeError(
            error.code,
            what=f"{text[:100]!r} is neither an address of this chain nor a key of yours",
            where=str(store.folder),
            why=error.why,
            what_to_do=error.what_to_do,
        ) from error


def text_of(text: str, keys: Path, prefix: str) -> str:
    """Return the address of an address or of a name."""
    return encode_address(key_of(text, Keystore(keys), prefix), prefix)


def write_proof(path: Path, found: answers.Answer) -> None:
    """Write an answer with its proof."""
    path.write_text(json.dumps(msgspec.to_builtins(found), indent=2) + "\n")


def show_transaction(
    found: answers.TransactionAnswer, status: answers.Status, is_json: bool
) -> None:
    """Print a transaction."""
    if is_json:
        print_json(msgspec.to_builtins(found))
        return
    click.echo(f"hash       {found.hash}")
    click.echo(f"state      {found.state}" + (f" ({found.reason})" if found.reason else ""))
    if found.transaction is not None:
        sent = found.transaction
        click.echo(f"amount     {format_amount(int(sent.amount), status.decimals)} {status.symbol}")
        click.echo(f"fee        {format_amount(int(sent.fee), status.decimals)} {status.symbol}")
        click.echo(f"from       {sent.sender}\nto         {sent.recipient}")
    if found.receipt is not None:
        place = found.receipt.block
        click.echo(f"result     {found.receipt.status}")
        click.echo(f"block      {place.height} {place.hash}")


def history_line(entry: answers.HistoryEntry, address: str, status: answers.Status) -> str:
    """Return one payment as a line."""
    sent = entry.transaction
    is_out = sent.sender == address
    other = sent.recipient if is_out else sent.sender
    amount = format_amount(int(sent.amount), status.decimals)
    way = "to  " if is_out else "from"
    result = "" if entry.receipt.status == "SUCCESS" else f"  {entry.receipt.status}"
    return f"{entry.receipt.block.height:>8} {amount:>24} {way} {other}{result}"
