"""Kernels: arrays in, arrays out; nothing here knows of chains, blocks or networks.

Read `layout` for the shapes, `backend` for the contract, then the bodies (`blake3`, `accounts`,
`transfer`, `merkle`), then the drivers that run them on a host or on a device.
"""
