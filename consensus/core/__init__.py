"""Simplex without a machine around it: events in, effects out, integers only.

Nothing here reads a clock, draws a random number or touches network, disk or executor; those are
events and effects (`events.py`), and cryptography is an argument. The standard library is all that
is imported. Read in this order: `types.py`, `events.py`, `safety.py`, `replica.py`.
"""
