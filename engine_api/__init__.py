"""The contract between executor and consensus, and nothing else. Spec: spec/engine_api.md."""
