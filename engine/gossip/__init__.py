"""Transactions that wait, passed on between executors. Spec: spec/gossip.md."""
