"""What one executor may choose for itself: `node.toml`, the environment (`TOS_`), and flags.

How the layers lie over each other stands in `runtime/settings.py`. What a network agrees on is not
here but in `constants.py` and `genesis.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from engine.gossip.addresses import check_peers_are_used
from kernels.backend import (
    CHECK_BLOCKS,
    CROSSOVER_TRANSACTIONS,
    KNOWN_KEYS,
    KNOWN_KEYS_MAX,
)
from runtime import settings
from runtime.logs import LogFormat, LogLevel
from runtime.settings import Count, Positive, Text

VARIABLE_PREFIX = "TOS_"

Device = Literal["auto", "cpu", "gpu"]
Threads = Annotated[int, Meta(ge=0, le=1_024)]
KnownKeys = Annotated[int, Meta(ge=0, le=KNOWN_KEYS_MAX)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of node.toml with their defaults; what each means stands in `MEANINGS`."""

    device: Device = "auto"
    device_crossover: Positive = CROSSOVER_TRANSACTIONS
    device_check_blocks: Count = CHECK_BLOCKS
    device_memory_mib: Count = 0
    threads: Threads = 0
    known_keys: KnownKeys = KNOWN_KEYS
    engine_api_address: Text = ""
    engine_api_secret_file: Text = ""
    http_address: Text = "127.0.0.1:8552"
    query_address: Text = "127.0.0.1:8553"
    gossip_listen: Text = ""
    gossip_peers: Text = ""
    keep_blocks: Count = 0
    snapshot_every: Positive = 1_024
    max_disk_bytes: Count = 0
    free_bytes_min: Count = 2**28
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"


MEANINGS: Mapping[str, str] = {
    "device": "where blocks are executed: auto takes a GPU if there is one, else the CPU",
    "device_crossover": "transactions from which a block goes to the GPU; smaller ones stay on the "
    "CPU; `doctor --device gpu` measures it",
    "device_check_blocks": "every so many blocks on the GPU one is executed on the CPU as well and "
    "compared; 0 for none",
    "device_memory_mib": "of the GPU's memory that may be taken; 0 takes most of what is free",
    "threads": "of the CPU for execution; 0 takes every core that the process may use",
    "known_keys": "senders whose keys are remembered, 32 bytes of memory each, so that more of "
    "their signatures can be verified; 0 for none",
    "engine_api_address": "where consensus connects: unix: and a path, or a loopback host and a "
    "port; empty is the socket run/engine.sock in the home",
    "engine_api_secret_file": "64 hex digits that callers prove to know; needed at a TCP address",
    "http_address": "loopback host and port of /healthz, /readyz and /metrics; port 0 takes a free "
    "one; empty serves none",
    "query_address": "host and port of the HTTP interface for users, /v1; port 0 takes a free one; "
    "empty serves none; there is no password, so others than this machine come through a proxy",
    "gossip_listen": "tcp:// address at which peers send waiting transactions, such as "
    "tcp://127.0.0.1:8554; empty takes part in no gossip",
    "gossip_peers": "KEY@tcp://HOST:PORT of each peer, at most 32, separated by spaces; each lists "
    "this node too, with what `python -m engine gossip key --home DIR` prints",
    "keep_blocks": "finalized blocks whose payloads and receipts are kept; 0 keeps all",
    "snapshot_every": "blocks from one snapshot of the accounts to the next, 1 or more",
    "max_disk_bytes": "what the home may use; blocks are refused before it is full; 0 leaves it to "
    "the disk",
    "free_bytes_min": "what the home leaves free of its disk",
    "log_level": "the least urgent lines that are written: debug, info, warning or error",
    "log_format": "of the log on stderr: text for people, json for programs; auto is text on a "
    "terminal",
}
LAYERS = settings.Layers(Settings, MEANINGS, prefix=VARIABLE_PREFIX, program="python -m engine")
KEYS = LAYERS.keys
Config = settings.Config[Settings]
variable = LAYERS.variable
template = LAYERS.template


def load_config(
    home: Path,
    *,
    file: Path | None = None,
    environment: Mapping[str, str],
    flags: Mapping[str, str | int | None],
) -> Config:
    """Return the settings of a node. `file` None: node.toml in the home, if there is one.

    `flags` holds None for what was not given. Raises ConfigError for the first thing that is wrong,
    GossipError for peers that nothing would be sent to.
    """
    config = LAYERS.load(home, file=file, environment=environment, flags=flags)
    check_peers_are_used(config.settings.gossip_listen, config.settings.gossip_peers)
    return config
