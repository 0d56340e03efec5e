"""The whole network in one thread: a virtual clock, hostile links, disks, executors and peers.

`python -m tests.sim SEED` runs one seed, `--seeds A:B` many; `world` is where to begin to read. A
seed fixes everything: who is Byzantine, what is lost, when power fails. What must hold is written
in `invariants` and `liveness`, in arithmetic of their own, so that a bug of the core is not also
theirs.
"""
