"""A whole network on one machine: processes, faults, what was seen of it, and its chain again.

`bench/devnet.py` is the command. `faults` reads what shall go wrong and when, `relay` is the
process between validators that delays, loses and parts, `homes` makes and changes folders,
`processes` starts and ends what runs, `watch` looks at it, `votes` finds double votes, `replay`
executes the chain once more from genesis. Nothing here ends a process that it did not start.
"""
