"""What a person types: `python -m engine`. Commands are thin; the work is in the modules above."""
