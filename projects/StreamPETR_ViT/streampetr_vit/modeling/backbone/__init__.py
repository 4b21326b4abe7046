"""Image backbones: the EVA-02 ViT and what makes feature levels of a backbone's maps."""

from streampetr_vit.modeling.backbone.cp_fpn import CPFPN
from streampetr_vit.modeling.backbone.eva02_vit import ViT
from streampetr_vit.modeling.backbone.simple_feature_pyramid import (
    SimpleFeaturePyramid,
    SingleScale,
)

__all__ = ["CPFPN", "SimpleFeaturePyramid", "SingleScale", "ViT"]
