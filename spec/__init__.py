"""The specification: Markdown that decides, whose Python blocks run as the oracle (`oracle`)."""
