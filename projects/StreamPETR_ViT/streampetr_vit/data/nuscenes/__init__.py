"""nuScenes-format tables: read once, kept as columns, opened by name."""

from streampetr_vit.data.nuscenes.catalog import (
    dataset_name,
    load_split,
    open_dataset,
    register_nuscenes,
)

__all__ = ["dataset_name", "load_split", "open_dataset", "register_nuscenes"]
