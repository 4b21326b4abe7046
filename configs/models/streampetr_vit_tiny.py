"""The ViT-L detector's code with 2 M parameters, 0.7 M of them in the ViT: for two CPU cores.

For a world of 25 m at 400x160. What differs in kind from the published model, and why, is in
docs/train.md: a prior on the cross-attention, light box losses, denoising without negatives.
"""

from .streampetr_vit_l import CODE_WEIGHTS, dataset_spec, model

net = model.backbone.net
net.img_size, net.window_size, net.global_window_size = 160, 6, 10  # tokens 10 x 25
net.embed_dim, net.num_heads, net.depth = 128, 4, 3
net.mlp_ratio = 2.5  # hidden width 320; odd widths are slow on CPUs
net.window_block_indexes = [1]  # the others have global windows
net.drop_path_rate = 0.0
net.use_act_checkpoint = False
net.pretrain_img_size = 160

head = model.head
head.in_channels = 128
head.num_queries, head.num_propagated, head.num_remembered, head.memory_length = 100, 32, 32, 64
head.point_cloud_range = [-25.6, -25.6, -5.0, 25.6, 25.6, 3.0]
head.center_range = [-30.6, -30.6, -10.0, 30.6, 30.6, 10.0]
head.position_encoder.position_range = [-30.6, -30.6, -10.0, 30.6, 30.6, 10.0]
head.position_encoder.depth_num = 32
head.position_encoder.gain = 4.0  # tokens are told apart by position from the first step
head.prior_sigma_cells = 2.5
decoder = head.decoder
decoder.embed_dim, decoder.num_heads, decoder.feedforward_dim, decoder.num_layers = 128, 4, 512, 3
decoder.dropout, decoder.use_act_checkpoint = 0.0, False

model.image_head.embed_dim, model.image_head.num_groups = 32, 4
criterion = model.criterion.detection
criterion.box_weight = 0.1
criterion.code_weights = [*CODE_WEIGHTS[:6], 3.0, 3.0, 0.2, 0.2]  # heading up, velocity down
model.denoising.groups = 3
model.denoising.translation_m = 0.5
model.denoising.max_positive_distance = 1.8  # above sqrt(3): every copy is a positive
criterion.max_positive_distance = 1.2407  # where the divisor's sphere has the cube's volume
model.size_divisibility = 16
