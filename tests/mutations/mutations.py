"""Small wrong changes of the source, each with the tests that should notice it."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One wrong change.

    Attributes:
        file: below the package, or a recipe from the root of the repository.
        old: text that the file has exactly once.
        new: what takes its place.
        tests: files or folders below tests/, the most likely first.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MODEL = ("modeling", "parity", "engine/test_detector_training.py", "inference")
DATA = ("data", "parity/test_transforms.py", "parity/test_sampler.py", "parity/test_data_info.py")
SOLVER = ("solver", "configs", "engine/test_common_configs.py")
CHECKPOINT = ("checkpoint", "tools/test_convert_checkpoint.py", "parity")
EVALUATION = ("evaluation", "parity/test_format_results.py", "engine/test_evaluation.py")
ENGINE = ("engine",)
STRUCTURES = ("structures", "modeling", "data")

MUTATIONS = (
    # modeling: the detector and its head
    Mutation("modeling/detector.py", "images.flip(1)", "images.flip(2)", MODEL),
    Mutation("modeling/detector.py", "code = rig_code or self.head", "code = self.head", MODEL),
    Mutation(
        "modeling/detector.py",
        "(0, size[1] - images.shape[-1], 0, size[0] - images.shape[-2])",
        "(size[1] - images.shape[-1], 0, size[0] - images.shape[-2], 0)",
        MODEL,
    ),
    Mutation("modeling/detector.py", "results[-window.num_frame_losses :]", "results", MODEL),
    Mutation("modeling/heads/temporal_head.py", "amax(-1)", "mean(-1)", MODEL),
    Mutation("modeling/heads/temporal_head.py", "codes[..., -2:]", "codes[..., -4:-2]", MODEL),
    Mutation(
        "modeling/heads/box_coding.py", "torch.atan2(sin, cos)", "torch.atan2(cos, sin)", MODEL
    ),
    Mutation("modeling/heads/box_coding.py", "scores >= score_threshold", "scores > 0", MODEL),
    Mutation(
        "modeling/heads/box_coding.py", "indexes // num_classes)", "indexes % len(codes[0]))", MODEL
    ),
    # modeling: memory and decoder
    Mutation(
        "modeling/temporal/memory.py",
        "scores.topk(count, dim=1)",
        "scores.topk(count, dim=1, largest=False)",
        MODEL,
    ),
    Mutation(
        "modeling/temporal/memory.py",
        "torch.cat((new[rows, best].detach(), old), dim=1)",
        "torch.cat((old, new[rows, best].detach()), dim=1)",
        MODEL,
    ),
    Mutation(
        "modeling/temporal/alignment.py",
        "memory_content=memory_content[:, count:]",
        "memory_content=memory_content[:, :-count or None]",
        MODEL,
    ),
    Mutation(
        "modeling/temporal/motion_layer_norm.py", "gain * x + offset", "x + gain * offset", MODEL
    ),
    Mutation(
        "modeling/decoder/decoder.py",
        "query = key = content + position",
        "query = key = content",
        MODEL,
    ),
    Mutation(
        "modeling/decoder/decoder.py",
        "torch.cat((value, memory_content), dim=1)",
        "torch.cat((value, memory_content + memory_position), dim=1)",
        MODEL,
    ),
    Mutation(
        "modeling/decoder/decoder.py",
        "outputs.append(self.post_norm(content))",
        "outputs.append(content)",
        MODEL,
    ),
    Mutation(
        "modeling/decoder/camera_sampling.py",
        "content + position, image.lidar_to_image",
        "content, image.lidar_to_image",
        MODEL,
    ),
    Mutation("modeling/image/position_encoder.py", "index * (index + 1)", "index * index", MODEL),
    Mutation("modeling/image/position_encoder.py", ".abs() / 1e3", " / 1e3", MODEL),
    # modeling: criterion
    Mutation(
        "modeling/criterion/losses.py", "(1 - alpha) * (1 - target)", "alpha * (1 - target)", MODEL
    ),
    Mutation(
        "modeling/criterion/losses.py",
        "(1 - heatmap).pow(gamma)",
        "(1 - heatmap).pow(alpha)",
        MODEL,
    ),
    Mutation(
        "modeling/criterion/denoising.py", "noise = uniform * 2 - 1", "noise = uniform", MODEL
    ),
    Mutation(
        "modeling/criterion/denoising.py",
        "/ 2 + self.translation_m) * self.scale",
        "/ 2) * self.scale + self.translation_m",
        MODEL,
    ),
    Mutation("modeling/criterion/assignment.py", "pair[..., 1] + first", "pair[..., 1]", MODEL),
    Mutation("modeling/criterion/detection_loss.py", ".clamp(min=1.0)", "", MODEL),
    # modeling: backbone
    Mutation("modeling/backbone/layers.py", "kept.div_(1.0 - self.rate)", "kept", MODEL),
    Mutation(
        "modeling/backbone/rope.py", "/ size * pretrain_size", "/ pretrain_size * size", MODEL
    ),
    Mutation(
        "modeling/backbone/windows.py",
        "below, right = -height % size, -width % size",
        "below, right = -width % size, -height % size",
        MODEL,
    ),
    Mutation(
        "modeling/backbone/simple_feature_pyramid.py",
        "stride * 2**extra",
        "stride * 2 * extra",
        MODEL,
    ),
    Mutation(
        "modeling/ops/deformable_aggregation.py", "align_corners=False", "align_corners=True", MODEL
    ),
    Mutation("modeling/ops/encodings.py", "for axis in (y, x, z)", "for axis in (x, y, z)", MODEL),
    # data
    Mutation(
        "data/annotations.py",
        "boxes[boxes[:, 7].isnan(), 7:9] = 0",
        "boxes[boxes[:, 7].isnan(), 7:8] = 0",
        DATA,
    ),
    Mutation("data/annotations.py", "+ 0.5)", "+ 0.25)", DATA),
    Mutation("data/boxes2d.py", "descending=True", "descending=False", DATA),
    Mutation("data/boxes2d.py", ">= min_size_px).all(dim=1)", ">= min_size_px).any(dim=1)", DATA),
    Mutation(
        "data/transforms.py",
        "max(final_height / height, final_width / width)",
        "min(final_height / height, final_width / width)",
        DATA,
    ),
    Mutation(
        "data/transforms.py",
        "int((1 - bottom) * height) - final_height",
        "int(bottom * height)",
        DATA,
    ),
    Mutation(
        "data/streaming_sampler.py",
        "iteration > self.start_iteration",
        "iteration >= self.start_iteration",
        DATA,
    ),
    Mutation(
        "data/streaming_sampler.py",
        "-(-length // sequence_split)",
        "length // sequence_split",
        DATA,
    ),
    Mutation(
        "data/window_sampler.py", "manual_seed(self.seed + epoch)", "manual_seed(self.seed)", DATA
    ),
    Mutation(
        "data/loaders.py",
        "[self.seed, item.iteration, item.slot, *position]",
        "[self.seed, item.slot, *position]",
        DATA,
    ),
    # solver
    Mutation(
        "solver/schedule.py", "return cosine * (1 -", "return end_factor + cosine * (1 -", SOLVER
    ),
    Mutation("solver/layer_decay.py", 'or "patch_embed" in parts', "", SOLVER),
    Mutation("solver/param_groups.py", 'or name.endswith(".bias")', "", SOLVER),
    Mutation(
        "configs/common/layer_decay.py",
        "optimizer.weight_decay = 1e-7",
        "optimizer.weight_decay = 1e-2",
        SOLVER,
    ),
    # checkpoint
    Mutation(
        "checkpoint/formats.py",
        'if all(name.startswith("module.")',
        'if any(name.startswith("module.")',
        CHECKPOINT,
    ),
    Mutation("checkpoint/settings.py", "if pair[0] != pair[1]", "if pair[0] > pair[1]", CHECKPOINT),
    Mutation("checkpoint/fit.py", "if theirs == ours)", "if len(theirs) == len(ours))", CHECKPOINT),
    Mutation("checkpoint/files.py", "ZIP_STORED", "ZIP_DEFLATED", CHECKPOINT),
    # evaluation
    Mutation(
        "evaluation/result_format.py", "boxes[:, [4, 3, 5]]", "boxes[:, [3, 4, 5]]", EVALUATION
    ),
    Mutation("evaluation/result_format.py", "np.argsort(-scores", "np.argsort(scores", EVALUATION),
    Mutation("evaluation/metric_tables.py", "key=float)", "key=str)", EVALUATION),
    Mutation(
        "evaluation/metric_tables.py", "(AP_WEIGHT + len(scores))", "(AP_WEIGHT + 1)", EVALUATION
    ),
    Mutation("evaluation/scoring.py", "entry.scored_as or entry.name", "entry.name", EVALUATION),
    # engine
    Mutation(
        "engine/hooks.py",
        "max(by_iterations, self.elapsed_s / self._max_seconds)",
        "by_iterations",
        ENGINE,
    ),
    Mutation("engine/hooks.py", "self.trainer.max_iter = self.trainer.iter + 1", "pass", ENGINE),
    Mutation("engine/trainer.py", 'enabled=precision == "fp16"', "enabled=False", ENGINE),
    Mutation("engine/distributed.py", "return mean / comm.get_world_size()", "return mean", ENGINE),
    Mutation("engine/recipe.py", "* lr_factor", "/ lr_factor", ENGINE),
    # geometry: float64 until it is relative to the lidar, and no product that may be rounded
    Mutation(
        "modeling/temporal/memory.py",
        "global_to_lidar = global_to_lidar.double()",
        "global_to_lidar = global_to_lidar.float()",
        ("inference/test_far_poses.py",),
    ),
    Mutation(
        "modeling/temporal/memory.py",
        "lidar_to_global = lidar_to_global.double()",
        "lidar_to_global = lidar_to_global.float()",
        ("inference/test_far_poses.py",),
    ),
    Mutation(
        "structures/frame.py",
        'stack("lidar_to_global").double()',
        'stack("lidar_to_global").float()',
        ("inference/test_far_poses.py",),
    ),
    Mutation(
        "modeling/ops/geometry.py",
        "(a_to_b[..., None, :3, :3] * vectors[..., None, :]).sum(-1)",
        "vectors @ a_to_b[..., :3, :3].transpose(-1, -2)",
        ("modeling/test_exact_geometry.py",),
    ),
    Mutation(
        "modeling/image/position_encoder.py",
        "inv_ex(lidar_to_image.double())",
        "inv_ex(lidar_to_image)",
        ("modeling/test_exact_geometry.py",),
    ),
    Mutation(
        "modeling/ops/precision.py",
        "including_emulation=False",
        "",
        ("modeling/test_precision.py",),
    ),
    # structures and inference
    Mutation(
        "structures/boxes3d.py", "moved[:, 6] += yaw_rad", "moved[:, 6] -= yaw_rad", STRUCTURES
    ),
    Mutation(
        "structures/collation.py", "moments[-num_targets:]", "moments[:num_targets]", STRUCTURES
    ),
    Mutation("structures/detections.py", "stream[:, -1] > 0", "stream[:, -1] >= 0", STRUCTURES),
    Mutation(
        "inference/stream.py",
        "if self._remembers else None",
        "",
        ("inference", "engine/test_evaluation.py"),
    ),
)
