"""What users ask a node, over HTTP: state, history, proofs, submission, events."""
