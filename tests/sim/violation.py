"""How a broken promise leaves a run."""


class Violation(Exception):
    """An invariant (I1 to I10, liveness, messages, memory) does not hold in a world."""

    def __init__(self, invariant: str, seed: int, at_ms: int, text: str) -> None:
        """Keep which one, in which world, when, and what was seen."""
        super().__init__(f"violation {invariant} seed {seed}")
        self.invariant = invariant
        self.seed = seed
        self.at_ms = at_ms
        self.text = text
