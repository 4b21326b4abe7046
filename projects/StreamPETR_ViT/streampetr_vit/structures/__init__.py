"""Value types that flow through the package: frames, poses, boxes, detections, memories."""

from streampetr_vit.structures.boxes3d import (
    box_corners,
    boxes_from_bottom_center,
    boxes_to_bottom_center,
    rotate_scale_translate_boxes,
)
from streampetr_vit.structures.collation import FrameTargets, collate_windows
from streampetr_vit.structures.dataset_spec import DatasetSpec, ObjectClass
from streampetr_vit.structures.detections import Detections, PaddedDetections
from streampetr_vit.structures.frame import CameraRig, Frame
from streampetr_vit.structures.global_boxes import GlobalBoxes
from streampetr_vit.structures.moment import Moment
from streampetr_vit.structures.objects import Objects
from streampetr_vit.structures.packed_copy import packed_to
from streampetr_vit.structures.pose import Pose, invert_rigid
from streampetr_vit.structures.rig import Camera, Distortion, Rig
from streampetr_vit.structures.sample import Boxes2D, Sample
from streampetr_vit.structures.tracks import NO_ID, Tracks

__all__ = [
    "NO_ID",
    "Boxes2D",
    "Camera",
    "CameraRig",
    "DatasetSpec",
    "Detections",
    "Distortion",
    "Frame",
    "FrameTargets",
    "GlobalBoxes",
    "Moment",
    "ObjectClass",
    "Objects",
    "PaddedDetections",
    "Pose",
    "Rig",
    "Sample",
    "Tracks",
    "box_corners",
    "boxes_from_bottom_center",
    "boxes_to_bottom_center",
    "collate_windows",
    "invert_rigid",
    "packed_to",
    "rotate_scale_translate_boxes",
]
