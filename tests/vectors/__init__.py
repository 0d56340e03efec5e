"""Golden vectors, generated from the oracle by `python -m tests.vectors` and published as JSON."""
