"""The contract as protobuf: `engine.proto`, and what `make proto` generates from it."""
