"""What /metrics says of a consensus node: counters, times, and gauges of the moment.

Gauges are asked for when somebody reads the page. Names begin with `tos_consensus_`, units stand in
them; labels come from the program, never from a peer.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, generate_latest

from runtime.metrics import Gauges, MomentGauges

PREFIX = "tos_consensus_"
BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


class NodeMetrics:
    """The counters of one node, in a registry of their own."""

    def __init__(self, genesis_hash: bytes, key: bytes) -> None:
        """Begin at zero."""
        self._registry = registry = CollectorRegistry()
        info = Info(f"{PREFIX}node", "For which chain, and by which key", registry=registry)
        info.info({"genesis_hash": genesis_hash.hex(), "key": key.hex()})
        self._final = self._counter("final_blocks", "Blocks that became final here")
        self._transactions = self._counter("final_transactions", "Transactions in them")
        self._view_changes = self._counter("view_changes", "Views that were nullified")
        self._missed_votes = self._counter("missed_votes", "Final views without an own vote")
        self._evidence = self._counter("evidence", "Pieces of evidence stored")
        self._alarms = self._counter("alarms", "What a person must hear of", ["code"])
        self._penalties = self._counter("penalties", "Peers that were banned")
        self._calls = self._counter("calls", "Calls of the executor", ["kind", "outcome"])
        self._times = Histogram(
            f"{PREFIX}stage_milliseconds",
            "Time spent per stage",
            ["stage"],
            buckets=BUCKETS_MS,
            registry=registry,
        )

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"{PREFIX}{name}", text, labels or [], registry=self._registry)

    def watch(self, gauges: Gauges) -> None:
        """Ask for the values of the moment whenever somebody reads the page."""
        self._registry.register(MomentGauges(PREFIX, gauges))

    def add_final(self, transaction_count: int) -> None:
        """Count a final block."""
        self._final.inc()
        self._transactions.inc(transaction_count)

    def add_view_change(self) -> None:
        """Count a nullified view."""
        self._view_changes.inc()

    def add_missed_vote(self) -> None:
        """Count a final view without an own vote."""
        self._missed_votes.inc()

    def add_evidence(self, count: int) -> None:
        """Count stored evidence."""
        self._evidence.inc(count)

    def add_alarm(self, code: str) -> None:
        """Count an alarm."""
        self._alarms.labels(code).inc()

    def add_penalty(self) -> None:
        """Count a ban."""
        self._penalties.inc()

    def add_call(self, kind: str, outcome: str) -> None:
        """Count a call that ended."""
        self._calls.labels(kind, outcome).inc()

    def add_time(self, stage: str, took_ms: int) -> None:
        """Take a time into account."""
        self._times.labels(stage).observe(took_ms)

    def page(self) -> bytes:
        """Return the text of /metrics."""
        return generate_latest(self._registry)
