"""Image backbones: the EVA-02 ViT and what makes feature levels of its map."""

from streampetr_vit.modeling.backbone.eva02_vit import ViT
from streampetr_vit.modeling.backbone.simple_feature_pyramid import (
    SimpleFeaturePyramid,
    SingleScale,
)

__all__ = ["SimpleFeaturePyramid", "SingleScale", "ViT"]
