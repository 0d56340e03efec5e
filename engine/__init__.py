"""The executor: what knows accounts and transactions. Start reading at `engine/codec.py`."""
