"""Temporal memory, positional codes and the decoder that reads them."""
