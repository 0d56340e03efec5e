"""`dev`: a chain for the time in which an application is written."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.address import encode_address
from engine.amounts import format_amount
from engine.cli.options import keys_option
from engine.client import URL_DEFAULT
from runtime.command_line import ExitCode, json_option, print_json
from runtime.keystore import Keystore
from runtime.logs import LogStream, open_log

if TYPE_CHECKING:  # kernels: only where a node runs
    from engine.dev import Pace
    from engine.node import Ready

ADDRESS_DEFAULT = URL_DEFAULT.removeprefix("http://")


@click.command()
@click.option("--accounts", type=click.IntRange(1, 10_000), default=10, show_default=True)
@click.option(
    "--block-ms", type=click.IntRange(10, 3_600_000), default=500, show_default=True,
    help="from one block to the next",
)  # fmt: skip
@click.option("--on-demand", is_flag=True, help="a block only when a transaction comes")
@click.option(
    "--state", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="go on from this file, and write it at the end; without it the chain is forgotten",
)  # fmt: skip
@click.option("--query-address", default=ADDRESS_DEFAULT, show_default=True, metavar="HOST:PORT")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning",
    show_default=True,
)  # fmt: skip
@keys_option
@json_option
def dev(
    accounts: int,
    block_ms: int,
    on_demand: bool,
    state: Path | None,
    query_address: str,
    log_level: str,
    keys: Path,
    is_json: bool,
) -> int:
    """Run a chain of one node that finalizes its own blocks; Ctrl-C ends it.

    Its keys are known to everybody: they are for development alone.
    """
    from engine.dev import Finalizer, Pace, dev_config, open_home, save_home
    from engine.node import Node, Ready

    config = dev_config(query_address, log_level)
    pace = Pace(block_ms=block_ms, is_on_demand=on_demand)

    def begin(ready: Ready) -> Callable[[], None]:
        """Make blocks, and print the first screen."""
        finalizer = Finalizer(ready, pace, tell=lambda why: log.error("no block is made", why=why))
        screen = first_screen(ready, Keystore(keys), pace)
        if is_json:
            print_json(screen)
        else:
            show(screen)
        finalizer.start()  # the last: what fails before it leaves nothing that runs
        return finalizer.stop

    with tempfile.TemporaryDirectory(prefix="tos-dev-") as folder:
        home = Path(folder, "home")
        open_home(home, state, accounts, time.time_ns() // 1_000_000)
        stream = LogStream(sys.stderr)
        log = open_log(config.settings.log_level, config.settings.log_format, stream)
        is_well = Node(home, config, log, stream, begin).run()
        if state is not None:
            save_home(home, state)
            click.echo(f"the chain is in {state}", err=True)
    return ExitCode.OK if is_well else ExitCode.FAILED


def first_screen(ready: "Ready", keystore: Keystore, pace: "Pace") -> dict[str, Any]:
    """Store the keys of the chain's accounts, and return what a person needs to begin."""
    from engine.dev import store_dev_keys

    genesis = ready.store.genesis
    accounts = []
    for entry in store_dev_keys(keystore, len(genesis.account_keys)):
        address = encode_address(entry.public_key, genesis.address_prefix)
        accounts.append({"name": entry.name, "address": address})
    url = f"http://{ready.queries}"
    return {
        "url": url,
        "accounts": accounts,
        "account_count": len(genesis.account_keys),
        "keys": str(keystore.folder),
        "genesis_hash": ready.store.genesis_hash.hex(),
        "chain_id": genesis.chain_id,
        "height": ready.store.finalized.height,
        "symbol": genesis.symbol,
        "opening_balance": format_amount(int(genesis.account_balances[0]), genesis.decimals),
        "blocks": "on demand" if pace.is_on_demand else f"every {pace.block_ms} ms",
    }


def show(screen: dict[str, Any]) -> None:
    """Write the first screen."""
    url, accounts = screen["url"], screen["accounts"]
    click.echo(f"a chain of one node, for development; blocks {screen['blocks']}, final at once")
    click.echo(f"  url       {url}   ({url}/openapi.json, {url}/v1/status, {url}/v1/events)")
    click.echo(f"  keys      {screen['keys']}   (no password, known to everybody)")
    click.echo(f"  accounts  {screen['opening_balance']} {screen['symbol']} each at the beginning")
    for account in accounts:
        click.echo(f"    {account['name']:6} {account['address']}")
    if screen["account_count"] > len(accounts):
        click.echo(f"    and {screen['account_count'] - len(accounts)} more, not in the keystore")
    click.echo(
        f"  try       python -m engine send --from {accounts[0]['name']} --to NAME --amount 1"
    )
    click.echo("Ctrl-C ends it")
