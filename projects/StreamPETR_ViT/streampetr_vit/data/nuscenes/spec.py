"""nuScenes as a `DatasetSpec`, and the other order that its classes have in released weights.

Source: the nuScenes detection task (categories of each class, detection_cvpr_2019's ranges) and the
released StreamPETR (order of the class channels, attributes).
"""

from __future__ import annotations

from streampetr_vit.structures import DatasetSpec, ObjectClass

_PARKED = ("vehicle.moving", "vehicle.parked")
_STOPPED = ("vehicle.moving", "vehicle.stopped")
_RIDDEN = ("cycle.with_rider", "cycle.without_rider")

NUSCENES = DatasetSpec(
    classes=(
        ObjectClass("car", ["vehicle.car"], 50.0, _PARKED),
        ObjectClass("truck", ["vehicle.truck"], 50.0, _PARKED),
        ObjectClass("construction_vehicle", ["vehicle.construction"], 50.0, _PARKED),
        ObjectClass("bus", ["vehicle.bus.bendy", "vehicle.bus.rigid"], 50.0, _STOPPED),
        ObjectClass("trailer", ["vehicle.trailer"], 50.0, _PARKED),
        ObjectClass("barrier", ["movable_object.barrier"], 30.0),
        ObjectClass("motorcycle", ["vehicle.motorcycle"], 40.0, _RIDDEN),
        ObjectClass("bicycle", ["vehicle.bicycle"], 40.0, _RIDDEN),
        ObjectClass(
            "pedestrian",
            [
                "human.pedestrian.adult",
                "human.pedestrian.child",
                "human.pedestrian.construction_worker",
                "human.pedestrian.police_officer",
            ],
            40.0,
            ("pedestrian.moving", "pedestrian.standing"),
        ),
        ObjectClass("traffic_cone", ["movable_object.trafficcone"], 30.0),
    ),
    cameras=(
        "CAM_FRONT",
        "CAM_FRONT_RIGHT",
        "CAM_FRONT_LEFT",
        "CAM_BACK",
        "CAM_BACK_LEFT",
        "CAM_BACK_RIGHT",
    ),
)
# The order in which the reference's converter numbers the labels of its 2D boxes, unlike those of
# its 3D boxes. Quirk: the 2D heads of released checkpoints have their class channels in it.
CONVERTER_CLASS_NAMES = (
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
)
# The lidar of the cars of most scenes, (x, y, z, qw, qx, qy, qz) on the vehicle, metres: the frame
# of detectors whose checkpoints do not record one. Source: nuScenes' table calibrated_sensor.
NUSCENES_LIDAR_TO_VEHICLE = (
    0.943713,
    0.0,
    1.84023,
    0.7077955119163518,
    -0.006492242056004365,
    0.010646214713995808,
    -0.7063073142877817,
)
NUSCENES_FRAME_PERIOD_S = 0.5  # between key frames
