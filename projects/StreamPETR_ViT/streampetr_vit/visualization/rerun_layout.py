"""Where rerun's viewer shows what. Needs the package rerun."""

from __future__ import annotations

import rerun as rr
import rerun.blueprint as rrb

from streampetr_vit.structures import Rig
from streampetr_vit.visualization.camera_grid import rows_by_view

WORLD = "/world"
TRAJECTORY = "/world/trajectory"
VEHICLE = "/world/vehicle"
OBJECTS = "/world/vehicle/objects"
VELOCITIES = "/world/vehicle/velocities"
TRAILS = "/world/trails"


def camera_entity(name: str) -> str:
    """The entity of a camera of any name."""
    return f"{VEHICLE}/cameras/{rr.escape_entity_path_part(name)}"


def layout(rig: Rig) -> rrb.Blueprint:
    """Pictures of the cameras on the left, by where they look; the scene in 3D on the right."""
    rows = [
        rrb.Horizontal(*(_camera_view(camera.name) for camera in row)) for row in rows_by_view(rig)
    ]
    scene = rrb.Tabs(
        # In the frame of the vehicle, the vehicle stays where it is.
        _scene_view("Around the vehicle", VEHICLE),
        _scene_view("World", WORLD),
    )
    return rrb.Blueprint(
        rrb.Horizontal(rrb.Vertical(*rows), scene, column_shares=[3, 2]), collapse_panels=True
    )


def _camera_view(name: str) -> rrb.Spatial2DView:
    contents = ["$origin/**", OBJECTS]
    return rrb.Spatial2DView(origin=camera_entity(name), contents=contents, name=name)


def _scene_view(name: str, origin: str) -> rrb.Spatial3DView:
    return rrb.Spatial3DView(origin=origin, contents=f"{WORLD}/**", name=name)
