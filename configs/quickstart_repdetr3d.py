"""The quick start with the RepDETR3D head: same data, time and evaluation as quickstart.py."""

from .models.repdetr3d_vit_tiny import model
from .quickstart import dataloader, dataset_spec, optimizer, report, schedule, synthetic, train

train.output_dir = "output/quickstart_repdetr3d"
report.title = "RepDETR3D quick start"
