"""Payload dissemination: pushed by leaders, fetched by everybody, every chunk proved on arrival."""

from consensus.payloads.service import Payloads

__all__ = ["Payloads"]
