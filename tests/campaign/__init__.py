"""Long tries against a real executor: killed at random instants, and fed with foreign bytes."""
