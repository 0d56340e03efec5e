"""Command lines of consensus: `python -m consensus --help`."""
