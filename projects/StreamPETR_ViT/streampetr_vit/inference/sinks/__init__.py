"""Where detected objects go: lines of JSON, results files of nuScenes, drawings."""

from streampetr_vit.inference.sinks.base import Scene, Sink
from streampetr_vit.inference.sinks.line_sinks import NuScenesResults, ObjectLines, TrackingResults

__all__ = ["NuScenesResults", "ObjectLines", "Scene", "Sink", "TrackingResults"]
