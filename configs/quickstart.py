"""Minutes on two CPU cores: a tiny StreamPETR from scratch on the synthetic data set.

`make quickstart` makes the data first. The world ends at 25 m; results are not comparable with
nuScenes. docs/train.md says what differs from the published recipe and why.
"""

from .common.nuscenes import dataloader, dataset_spec
from .common.nuscenes import tracking_evaluator as _tracking_evaluator
from .common.optim import optimizer
from .common.report import report
from .common.schedule import schedule
from .common.train import train
from .models.streampetr_vit_tiny import model

synthetic = dict(preset="quickstart")  # what tools/quickstart.py makes
_dataset = dict(root="data/synthetic_quickstart", version="v1.0-trainval")
dataloader.train.dataset = dict(**_dataset, split="train")
dataloader.test.dataset = dict(**_dataset, split="val")
dataloader.evaluator = [dataloader.evaluator, _tracking_evaluator]
_mapper = dataloader.train.mapper
_mapper.image_aug.final_size = [160, 400]
_mapper.image_aug.resize_range = [1.0, 1.0]  # of 400x225 pictures, without augmentation
_mapper.image_aug.flip_probability = 0.0
_mapper.scene_aug = None
_mapper.cache_images = True  # the whole set, 1 GB
dataloader.train.lanes_per_rank = 1
dataloader.train.num_workers = dataloader.test.num_workers = 0

optimizer.lr, train.auto_scale = 8e-4, False  # found for one frame per step
optimizer.params.backbone_lr_factor = 1.0  # nothing is pre-trained
schedule.warmup_iters, schedule.warmup_factor, schedule.end_factor = 100, 0.1, 0.01
train.max_seconds = 540  # the cosine follows the clock
train.max_iter = 20000
train.precision = "float32"  # quicker than bf16 at this width on a CPU
train.log_period = 50
train.checkpointer.period = 1000
train.output_dir = "output/quickstart"
report.title, report.memory_off, report.range_m = "StreamPETR quick start", True, 25.6
