"""Counters and gauges: what the page says after events, and that values are asked for late."""

from engine.metrics import NodeMetrics


def lines(metrics: NodeMetrics) -> dict[str, str]:
    """Return name and labels -> value of the page."""
    text = metrics.page().decode()
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: value for name, value in rows if "_created" not in name}


def test_events_are_counted() -> None:
    """Blocks, their transactions, time per stage and loud events add up."""
    metrics = NodeMetrics("1.2", b"\xab" * 32)
    metrics.add_block(10, {"decode": 5, "durable": 7})
    metrics.add_block(20, {"decode": 6})
    metrics.add_finalized(2)
    metrics.add_event("bad_block")
    page = lines(metrics)
    assert page["tos_blocks_total"] == "2.0"
    assert page["tos_transactions_total"] == "30.0"
    assert page['tos_stage_nanoseconds_total{stage="decode"}'] == "11.0"
    assert page['tos_stage_nanoseconds_total{stage="durable"}'] == "7.0"
    assert page["tos_finalized_blocks_total"] == "2.0"
    assert page['tos_events_total{event="bad_block"}'] == "1.0"
    genesis = "ab" * 32
    assert page[f'tos_node_info{{genesis_hash="{genesis}",version="1.2"}}'] == "1.0"


def test_gauges_have_the_value_of_the_moment() -> None:
    """A gauge is asked for when the page is made, not before."""
    metrics = NodeMetrics("1", b"")
    asked = []

    def gauges() -> dict[str, int]:
        asked.append(1)
        return {"finalized_height": len(asked), "free_disk_bytes": 2**40}

    metrics.watch(gauges)
    assert asked == []
    assert lines(metrics)["tos_finalized_height"] == "1.0"
    page = lines(metrics)
    assert page["tos_finalized_height"] == "2.0"
    assert page["tos_free_disk_bytes"] == "1.099511627776e+12"
