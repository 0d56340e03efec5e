"""How a broken promise leaves a run."""

NAMES = {
    "I1": "one finalized block per height, one chain",
    "I2": "never finalization and nullification of one view",
    "I3": "at most one notarized proposal per view",
    "I4": "no honest double vote, restarts included",
    "I5": "nothing leaves before it is durable",
    "I6": "final results equal a serial execution; headers are right",
    "I7": "finalized is monotone; head on safe on finalized",
    "I8": "no certificate holds in another epoch, on another chain, in another domain",
    "I9": "every observed equivocation yields evidence, none against an honest validator",
    "I10": "every notarized payload is durable at an honest node",
    "I11": "liveness: finality within the bound after healing",
    "I12": "messages per view are of the order of n squared",
    "I13": "memory is bounded",
}
LIVENESS, MESSAGES, MEMORY = "I11", "I12", "I13"


class Violation(Exception):
    """An invariant does not hold in a world."""

    def __init__(self, invariant: str, seed: int, at_ms: int, text: str) -> None:
        """Keep which one (of NAMES), in which world, when, and what was seen."""
        assert invariant in NAMES, invariant
        super().__init__(f"violation {invariant} seed {seed}")
        self.invariant = invariant
        self.seed = seed
        self.at_ms = at_ms
        self.text = text
