"""The quick start on a GPU: a ViT of 22 M parameters at 800x320 on a 51 m synthetic world.

The published head and losses, but for what a training from scratch within minutes needs (see
models/streampetr_vit_tiny.py and docs/train.md).
"""

from .common.nuscenes import dataloader, dataset_spec
from .common.nuscenes import tracking_evaluator as _tracking_evaluator
from .common.optim import optimizer
from .common.report import report
from .common.schedule import schedule
from .common.train import train
from .models.streampetr_vit_l import model

_net = model.backbone.net
_net.embed_dim, _net.depth, _net.num_heads = 384, 12, 6
_net.window_block_indexes = [i for i in range(12) if i % 3 != 2]
_net.drop_path_rate, _net.use_act_checkpoint = 0.1, False
model.head.in_channels = 384
model.head.position_encoder.gain = 4.0
model.head.prior_sigma_cells = 2.5
model.head.decoder.use_act_checkpoint = False
model.denoising.translation_m = 0.5

synthetic = dict(preset="gpu")  # what tools/quickstart.py makes
_dataset = dict(root="data/synthetic_gpu", version="v1.0-trainval")
dataloader.train.dataset = dict(**_dataset, split="train")
dataloader.test.dataset = dict(**_dataset, split="val")
dataloader.evaluator = [dataloader.evaluator, _tracking_evaluator]
dataloader.train.mapper.image_aug.resize_range = [0.94, 1.25]  # of 800x450 pictures
dataloader.train.lanes_per_rank = 4
dataloader.train.num_workers = 8

optimizer.lr, train.auto_scale = 4e-4, False
optimizer.params.backbone_lr_factor = 1.0  # nothing is pre-trained
schedule.warmup_iters = 200
train.max_seconds, train.max_iter, train.checkpointer.period = 480, 100_000, 1000
train.output_dir = "output/quickstart"
report.title, report.memory_off = "StreamPETR quick start", True
