"""nuScenes trainval at 800x320: loaders, augmentation, evaluator. Recipes import and edit this.

Another data set: give `dataset` a name of detectron2's catalog, or a description such as
dict(root="path/to/mine", version="v1.0-mine", split="train"). Other classes or cameras: change
`dataset_spec`, from which mapper, heads, evaluator, report and pictures take them (docs/data.md).
"""

from detectron2.config import LazyCall as L

from streampetr_vit.data.build import build_test_loader, build_train_loader
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.data.transforms import ImageAugmentation, SceneAugmentation
from streampetr_vit.evaluation import NuScenesEvaluator, NuScenesTrackingEvaluator
from streampetr_vit.structures import DatasetSpec

# Classes with the categories that each takes, cameras, lidar: see streampetr_vit.structures.
dataset_spec = L(DatasetSpec)(**NUSCENES.plain())

dataloader = dict(
    train=L(build_train_loader)(
        dataset="nuscenes_trainval_train",
        spec="${dataset_spec}",
        mapper=L(NuScenesMapper)(
            training=True,
            image_aug=L(ImageAugmentation)(
                # (height, width) that the network sees.
                final_size=[320, 800],
                # Factors on the stored 1600x900 pictures that training draws from.
                resize_range=[0.47, 0.625],
                flip_probability=0.5,
                # Part of the height to cut off below.
                bottom_crop_range=[0.0, 0.0],
            ),
            scene_aug=L(SceneAugmentation)(
                # Rotation about the vertical axis, 22.5 degrees to each side.
                yaw_range_rad=[-0.3925, 0.3925],
                scale_range=[0.95, 1.05],
                translation_std_m=[0.0, 0.0, 0.0],
            ),
            # Ground truth is kept where the model looks for it.
            point_cloud_range="${model.head.point_cloud_range}",
            # Leave out boxes without a lidar or radar point.
            use_valid_flag=True,
            # Targets of the 2D head; False if model.image_head is None.
            boxes2d=True,
            # Order of their labels; None is that of the 3D boxes. Released 2D heads have another.
            class_names_2d=None,
            # "count" goes on with black pixels and a log line for each broken picture.
            on_bad_image="raise",
        ),
        # Streams side by side in each process. The published recipes have 16 in all.
        lanes_per_rank=2,
        # Loading processes for each training process; None divides the cores of the machine.
        num_workers=None,
        # Pieces that each scene is cut into: 2 makes training sequences of about 20 frames.
        sequence_split=2,
        seed="${train.seed}",
    ),
    test=L(build_test_loader)(
        dataset="nuscenes_trainval_val",
        spec="${dataset_spec}",
        mapper=L(NuScenesMapper)(training=False, image_aug="${...train.mapper.image_aug}"),
        num_workers=None,
        # "scene": every process evaluates whole scenes. "reference": equal blocks that cut scenes,
        # for the published numbers (with 8 processes and evaluator.allow_padding=True).
        sharding="scene",
    ),
    # Or a list of evaluators, see `tracking_evaluator`.
    evaluator=L(NuScenesEvaluator)(
        dataset="${dataloader.test.dataset}",
        spec="${dataset_spec}",
        output_dir="${train.output_dir}/inference",
        allow_padding=False,
    ),
)

# For recipes that evaluate tracks too: dataloader.evaluator = [dataloader.evaluator, this one].
tracking_evaluator = L(NuScenesTrackingEvaluator)(
    dataset="${dataloader.test.dataset}",
    spec="${dataset_spec}",
    output_dir="${train.output_dir}/inference",
    # Of its folder in output_dir, and of its numbers in metrics.json.
    name="tracking",
    # "lineage" or "greedy", or the rules of one: L(GreedyRules)(...), L(LineageRules)(...).
    tracker="lineage",
)
