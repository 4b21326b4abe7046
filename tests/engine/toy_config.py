"""The toy task as a configuration, with the project's own defaults for everything else."""

import toy_task
from detectron2.config import LazyCall as L

from ...configs.common.optim import optimizer
from ...configs.common.schedule import schedule
from ...configs.common.train import train

model = L(toy_task.ToyDetector)(width=8)
dataloader = dict(
    train=L(toy_task.build_toy_train_loader)(size=64, bad=(), lanes_per_rank=4),
    test=L(toy_task.build_toy_test_loader)(size=16),
    evaluator=L(toy_task.ToyEvaluator)(output_dir="${train.output_dir}/inference"),
)
optimizer.lr = 0.02
schedule.update(epochs=2, warmup_iters=5, lr_batch=4)
train.update(device="cpu", precision="float32", log_period=4)
