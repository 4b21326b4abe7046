"""Inference: the moments of a drive, and streams of frames, through a detector."""

from streampetr_vit.inference.predictor import Predictor
from streampetr_vit.inference.stream import Stream
from streampetr_vit.structures import Camera, Distortion, Moment, Objects, Pose, Rig

__all__ = [
    "Camera",
    "Distortion",
    "Moment",
    "Objects",
    "Pose",
    "Predictor",
    "Rig",
    "Stream",
]
