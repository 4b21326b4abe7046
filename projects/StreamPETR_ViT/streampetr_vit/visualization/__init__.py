"""Pictures of detections: cameras, bird's-eye view, whole frames."""

from streampetr_vit.visualization.bird_eye_view import draw_bird_eye_view
from streampetr_vit.visualization.camera_grid import camera_grid
from streampetr_vit.visualization.camera_panels import draw_cameras
from streampetr_vit.visualization.encoding import save_picture
from streampetr_vit.visualization.frame_picture import draw_record
from streampetr_vit.visualization.moment_picture import draw_moment
from streampetr_vit.visualization.video import video_writer

__all__ = [
    "camera_grid",
    "draw_bird_eye_view",
    "draw_cameras",
    "draw_moment",
    "draw_record",
    "save_picture",
    "video_writer",
]
