"""What /metrics says of a node: counters of blocks and calls, gauges of the moment.

Counters are told by events, gauges are asked for when somebody reads the page, so a node that
nobody watches pays nothing for them. Names begin with `tos_`, units stand in them.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Info, generate_latest

from runtime.metrics import Gauges, MomentGauges

PREFIX = "tos_"


class NodeMetrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self, version: str, genesis_hash: bytes) -> None:
        """Begin at zero."""
        self._registry = registry = CollectorRegistry()
        info = Info("tos_node", "What runs, and for which chain", registry=registry)
        info.info({"version": version, "genesis_hash": genesis_hash.hex()})
        self._blocks = Counter("tos_blocks", "Blocks executed and valid", registry=registry)
        self._transactions = Counter(
            "tos_transactions", "Transactions in executed blocks", registry=registry
        )
        self._stages = Counter(
            "tos_stage_nanoseconds", "Time spent per stage", ["stage"], registry=registry
        )
        self._finalized = Counter("tos_finalized_blocks", "Blocks finalized", registry=registry)
        self._events = Counter(
            "tos_events", "What a person should look at", ["event"], registry=registry
        )

    def watch(self, gauges: Gauges) -> None:
        """Ask these for the values of the moment, whenever somebody reads the page."""
        self._registry.register(MomentGauges(PREFIX, gauges))

    def add_block(self, transaction_count: int, stage_ns: Mapping[str, int]) -> None:
        """Count an executed block."""
        self._blocks.inc()
        self._transactions.inc(transaction_count)
        for stage, ns in stage_ns.items():
            self._stages.labels(stage).inc(ns)

    def add_finalized(self, block_count: int) -> None:
        """Count blocks that became final."""
        self._finalized.inc(block_count)

    def add_event(self, event: str) -> None:
        """Count an event by its name; names come from the program, never from a peer."""
        self._events.labels(event).inc()

    def page(self) -> bytes:
        """Return the text of /metrics."""
        return generate_latest(self._registry)
