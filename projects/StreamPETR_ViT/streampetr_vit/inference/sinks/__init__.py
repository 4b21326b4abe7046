"""Where detected objects go: lines of JSON, a results file of nuScenes, drawings."""

from streampetr_vit.inference.sinks.base import Scene, Sink
from streampetr_vit.inference.sinks.line_sinks import NuScenesResults, ObjectLines

__all__ = ["NuScenesResults", "ObjectLines", "Scene", "Sink"]
