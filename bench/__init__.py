"""Benchmarks: what the ledger does per second, on this machine, beside the serial arm.

Start with `python bench/lanes.py --help`; `workloads` says what is run, `arms` how it is timed.
"""
