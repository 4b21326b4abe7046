"""Inference: streams of frames through a detector."""

from streampetr_vit.inference.stream import Stream

__all__ = ["Stream"]
