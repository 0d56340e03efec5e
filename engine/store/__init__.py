"""What the executor keeps on disk; `store` is the door, spec/storage.md describes every file."""
