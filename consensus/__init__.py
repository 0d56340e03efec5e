"""The second process of a node: proposals, votes, certificates, epochs, block sync.

It alone knows validators and finality; a payload is opaque bytes with a hash and limits. The rules
are in `core/`, which does no input or output. Spec: spec/consensus.md.
"""
