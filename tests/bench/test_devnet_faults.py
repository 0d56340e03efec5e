"""The words of faults: what each means, and what is refused."""

import pytest

from bench.network.faults import Act, FaultError, LinkState, parse_faults, parse_offsets


def test_every_fault_becomes_acts_in_order_of_time() -> None:
    """A pause ends again; what links do is one state, changed at each edge of a window."""
    faults = parse_faults(
        count=4,
        kill=["1@20s"],
        kill_executor=["2@15s", "0@1500ms"],
        restart=["1@1m"],
        pause=["2@30s:10s"],
        partition=["0,1/2,3@50s:10s"],
        delay=["100ms"],
        loss=["5%", "0.5%@55s:20s"],
    )
    assert faults.needs_relays
    assert faults.links_at_start == LinkState(delay_ms=100, loss_permille=50)
    told = [(act.at_ms, act.deed, act.validator) for act in faults.acts]
    assert told == [
        (1_500, "kill_executor", 0),
        (15_000, "kill_executor", 2),
        (20_000, "kill", 1),
        (30_000, "pause", 2),
        (40_000, "resume", 2),
        (50_000, "links", -1),
        (55_000, "links", -1),
        (60_000, "restart", 1),
        (60_000, "links", -1),
        (75_000, "links", -1),
    ]
    links = [act.links for act in faults.acts if act.deed == "links"]
    sides = ((0, 1), (2, 3))
    assert links == [
        LinkState(delay_ms=100, loss_permille=50, groups=sides),
        LinkState(delay_ms=100, loss_permille=55, groups=sides),
        LinkState(delay_ms=100, loss_permille=55),
        LinkState(delay_ms=100, loss_permille=50),
    ]


def test_without_faults_of_links_no_relay_is_needed() -> None:
    """Kills alone leave validators dialling each other."""
    faults = parse_faults(count=2, kill=["0@1s"])
    assert not faults.needs_relays
    assert faults.acts == (Act(at_ms=1_000, deed="kill", validator=0),)
    assert str(faults.acts[0]) == "kill 0"


@pytest.mark.parametrize(
    "given",
    [
        {"kill": ["4@1s"]},
        {"kill": ["1"]},
        {"kill": ["1@1s:2s"]},
        {"kill": ["1@1"]},
        {"kill": ["1@48000m"]},
        {"restart": ["x@1s"]},
        {"pause": ["1@1s"]},
        {"partition": ["0,1/2,3"]},
        {"partition": ["0,1/2@1s:1s"]},
        {"partition": ["0,1,2,3@1s:1s"]},
        {"partition": ["0,1/1,2,3@1s:1s"]},
        {"partition": ["0/1,2,3@1s:5s", "0,1/2,3@2s:1s"]},
        {"delay": ["100"]},
        {"delay": ["2m"]},
        {"delay": ["100ms@1s"]},
        {"loss": ["5"]},
        {"loss": ["101%"]},
        {"loss": ["-5%"]},
    ],
)
def test_what_makes_no_sense_is_explained(given: dict[str, list[str]]) -> None:
    """Each is refused with the text that was given and what would be right."""
    with pytest.raises(FaultError) as caught:
        parse_faults(count=4, **given)
    assert caught.value.code == "fault.form"
    assert next(iter(given.values()))[0].partition("@")[0] in str(caught.value) or "two" in str(
        caught.value
    )


def test_clock_offsets() -> None:
    """Ahead or behind, per validator."""
    assert parse_offsets(["1:2000", "2:-2000", "0:+5"], 4) == {1: 2_000, 2: -2_000, 0: 5}
    for text in ("1", "1:", "4:5", "1:2s", "a:5"):
        with pytest.raises(FaultError):
            parse_offsets([text], 4)
