"""EVA-02 ViT-Large at 800x320, without and with a feature pyramid. Recipes import and edit these.

`backbone` gives one map of stride 16 with 1024 channels (StreamPETR). `pyramid_backbone` gives four
levels of 256 channels, strides 4 to 32 (RepDETR3D).
"""

from detectron2.config import LazyCall as L

from streampetr_vit.modeling.backbone import SimpleFeaturePyramid, SingleScale, ViT

GLOBAL_BLOCKS = (2, 5, 8, 11, 14, 17, 20, 23)

net = L(ViT)(
    img_size=320,  # shorter image side in pixels; for another, change global_window_size with it
    patch_size=16,
    window_size=16,  # tokens; windows of window_block_indexes
    global_window_size=20,  # tokens; must be img_size // patch_size, 0 = whole (square) map
    in_chans=3,
    embed_dim=1024,
    depth=24,
    num_heads=16,
    mlp_ratio=4 * 2 / 3,  # hidden width 2730
    window_block_indexes=[i for i in range(24) if i not in GLOBAL_BLOCKS],
    qkv_bias=True,  # of queries and values
    drop_path_rate=0.3,  # of the last block, linear from 0
    # In training, False keeps all activations; True recomputes blocks: least memory, a third more
    # arithmetic; "selective" keeps matrix products and attention outputs, recomputes the rest.
    use_act_checkpoint=True,
    xattn=True,  # the quickest attention at hand, without padding; False is the plain maths
)

backbone = L(SingleScale)(net=net)

pyramid_backbone = L(SimpleFeaturePyramid)(
    net=net,
    in_feature="last_feat",
    out_channels=256,
    scale_factors=[4, 2, 1, 0.5],  # p2, p3, p4, p5; 0.25 adds p6
    norm="LN",
    half_scale="conv",  # as the released RepDETR3D weights; "max_pool" as EVA-02 detection
    square_pad=0,
)
