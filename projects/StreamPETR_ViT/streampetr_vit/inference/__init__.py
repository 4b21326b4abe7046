"""Inference: the moments of a drive, and streams of frames, through a detector."""

from streampetr_vit.inference.predictor import Predictor
from streampetr_vit.inference.stream import Stream
from streampetr_vit.structures import Moment, Objects, Rig

__all__ = ["Moment", "Objects", "Predictor", "Rig", "Stream"]
