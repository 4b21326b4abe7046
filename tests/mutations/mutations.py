"""Small wrong changes of the source, each with the tests that should notice it."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One wrong change.

    Attributes:
        file: below the package, or a recipe from the root of the repository.
        old: text that the file has exactly once.
        new: what takes its place.
        tests: files, folders or tests below tests/, the most likely first.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MODEL = ("modeling", "parity", "engine/test_detector_training.py", "inference")
RAYS = (
    "modeling/test_ray_denoising.py",
    "parity/test_parity_raydn.py",
    "modeling/test_training_window.py",
)
QUALITY = ("modeling/test_quality.py", "modeling/test_soft_class_target.py")
DATA = ("data", "parity/test_transforms.py", "parity/test_sampler.py", "parity/test_data_info.py")
SOLVER = ("solver", "configs", "engine/test_common_configs.py")
CHECKPOINT = ("checkpoint", "tools/test_convert_checkpoint.py", "parity")
EVALUATION = ("evaluation", "parity/test_format_results.py", "engine/test_evaluation.py")
ENGINE = ("engine",)
STRUCTURES = ("structures", "modeling", "data")
# Of the rooms below, only the files that are about what is changed.
# Not its tests that try every value of every recipe, which take a minute.
SETTINGS = tuple(
    f"engine/test_setting_checks.py::test_{name}"
    for name in (
        "messages_say_what_to_type",
        "what_a_constructor_raises_names_the_innermost_part",
        "home_is_written_out",
        "ranges_hold_for_the_arguments_of_this_package_alone",
        "as_many_boxes_as_the_metric_takes_are_allowed",
        "every_setting_of_the_quick_start_takes_every_wrong_value[train]",
        "every_setting_of_the_quick_start_takes_every_wrong_value[optimizer]",
    )
)
HOSTILE = ("engine/test_hostile_config.py",)
CONFIG = ("engine/test_config.py", "configs/test_class_counts.py", "engine/test_more_hooks.py")
RECIPE = ("engine/test_recipe.py",)
OWN_SETS = ("evaluation/test_own_data_sets.py",)
PREFLIGHT = ("engine/test_preflight.py",)
RESUME = ("engine/test_resume.py", "engine/test_agreement.py")
RUN_FOLDER = ("engine/test_run_folder.py",)
SIGNALS = (
    "engine/test_signals.py::test_handlers_are_restored_and_only_the_main_thread_has_them",
    "engine/test_signals.py::test_what_is_ignored_stays_ignored",
    "engine/test_signals.py::test_a_signal_that_came_during_a_step_ends_what_follows_it",
)
HOOKS = ("engine/test_hooks.py",)
EXACT = ("engine/test_exact_state.py", "engine/test_draws.py", "engine/test_clock.py")
LANES = ("engine/test_lane_memory.py",)
MANY = ("engine/test_many_processes.py",)
MANIFEST = ("checkpoint/test_manifest.py",)
FREEZE = ("engine/test_freeze.py", "engine/test_freeze_detector.py")
BEST = ("engine/test_best_checkpoint.py",)
OWN_HOOKS = ("engine/test_hook_states.py", "engine/test_configured_hooks.py")
BACKGROUND = ("checkpoint/test_background.py",)
AVERAGE = ("solver/test_ema.py", "engine/test_ema_training.py")
GROUP = ("engine/test_group.py", "engine/test_two_processes.py")
WATCH = ("engine/test_watch.py",)
PLACE = ("engine/test_place.py", "engine/test_processes.py")
PROCESSES = ("engine/test_processes.py",)
SAMPLES = ("structures/test_sample_checks.py",)
TRAINING_CHECKS = ("data/test_training_checks.py",)
TABLES = ("data/test_bad_tables.py", "data/test_hostile_tables.py", "data/test_mixed_cameras.py")
CACHE = ("data/test_hostile_tables.py", "data/test_record_cache.py")
DEVKIT = ("evaluation/test_devkit_needs.py", "evaluation/test_own_data_sets.py")
BOXES = ("evaluation/test_sound_boxes.py", "evaluation/test_nuscenes_evaluator.py")
RESULTS = ("report/test_hostile_results.py",)
LOADING = ("inference/test_load_detector.py",)
PREDICTING = ("inference/test_predictor.py", "inference/test_wrong_uses.py")
PLAYING = ("inference/test_playing.py", "inference/test_predict_tool.py")
RIGS = ("inference/test_rig_mistakes.py",)
DRIVES = ("inference/test_pose_mistakes.py",)
CHECK_RIG = ("inference/test_check_rig.py", "inference/test_given_boxes.py")
PANELS = (
    "visualization/test_rig_picture.py",
    "visualization/test_moment_picture.py",
    "visualization/test_camera_view.py",
)
RECORDED = ("checkpoint/test_settings.py",)
USUAL = ("data/test_typical.py",)
ERRORS = ("engine/test_errors.py",)
GREEDY = ("tracking/test_greedy.py", "tracking/test_matching.py", "parity/test_parity_tracker.py")
TRAILS = ("tracking/test_trails.py",)
LINEAGE = ("tracking/test_lineage.py", "tracking/test_lineage_soup.py")
IDS = ("inference/test_naming_queries.py", "inference/test_tracks_of_predictor.py")
TRACK_FILES = (
    "evaluation/test_nuscenes_tracking_evaluator.py",
    "evaluation/test_tracking_edges.py",
)
EXPORT = ("export/test_exported_numbers.py", "export/test_cameras.py")
RUNNER = ("export/test_runner.py",)
SESSIONS = ("export/test_sessions.py",)
EXPORTED = ("export/test_exported_detector.py",)
MEMORY = ("modeling/test_temporal_memory.py", "modeling/test_detector.py")

MUTATIONS = (
    # modeling: the detector and its head
    Mutation("modeling/image/normalization.py", "images.flip(-3)", "images.flip(-2)", MODEL),
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
        "modeling/heads/box_coding.py",
        "scores, indexes // num_classes,",
        "scores, indexes % len(codes[0]),",
        MODEL,
    ),
    # modeling: quality and soft class targets
    Mutation("modeling/heads/box_coding.py", "(scores * centerness)", "(centerness)", QUALITY),
    Mutation(
        "modeling/heads/box_coding.py", "valid &= class_scores >=", "valid &= scores >=", QUALITY
    ),
    Mutation(
        "modeling/heads/box_coding.py",
        "(class_scores, queries, labels)\n        )",
        "(scores, queries, labels)\n        )",
        QUALITY,
    ),
    Mutation("modeling/heads/quality.py", "states + position", "states", QUALITY),
    Mutation("modeling/heads/quality.py", "nn.init.zeros_(self.logits.weight)", "pass", QUALITY),
    Mutation(
        "modeling/heads/quality.py", "quality[..., CENTERNESS]", "quality[..., YAWNESS]", QUALITY
    ),
    Mutation(
        "modeling/heads/temporal_head.py",
        "queries.position[:, slots:]",
        "queries.position[:, : states.shape[2]]",
        QUALITY,
    ),
    Mutation(
        "modeling/heads/temporal_head.py",
        "torch.random.fork_rng(devices=[])",
        "torch.random.fork_rng(devices=[], enabled=False)",
        QUALITY,
    ),
    Mutation(
        "modeling/heads/temporal_head.py",
        "if quality is None or not self.remember_by_quality:",
        "if quality is None:",
        QUALITY,
    ),
    Mutation("modeling/heads/temporal_head.py", "scores * centerness_of", "centerness_of", QUALITY),
    Mutation(
        "modeling/criterion/quality_loss.py",
        "boxes[..., :7].isfinite()",
        "boxes.isfinite()",
        QUALITY,
    ),
    Mutation(
        "modeling/criterion/quality_loss.py",
        "torch.where(counts, centerness, 0)",
        "centerness",
        QUALITY,
    ),
    Mutation(
        "modeling/criterion/quality_loss.py",
        "codes[..., :3] - boxes[..., :3]",
        "codes[..., :2] - boxes[..., :2]",
        QUALITY,
    ),
    Mutation("modeling/criterion/quality_loss.py", "same_side.abs()", "same_side", QUALITY),
    Mutation("modeling/criterion/quality_loss.py", "yaw.sin() + cos", "yaw.sin() - cos", QUALITY),
    Mutation("modeling/criterion/detection_loss.py", "total / (mean_count", "total / (1", QUALITY),
    Mutation(
        "modeling/criterion/detection_loss.py",
        "centers_m[paired.rows] = paired.boxes[paired.box][..., :2]",
        "pass",
        QUALITY,
    ),
    Mutation(
        "modeling/criterion/detection_loss.py",
        "closeness(codes[..., :2], centers_m)",
        "closeness(codes[..., :2], centers_m * 0)",
        QUALITY,
    ),
    Mutation(
        "modeling/criterion/losses.py",
        "error_m.amin(-1, keepdim=True) - error_m",
        "-error_m",
        QUALITY,
    ),
    Mutation(
        "modeling/criterion/losses.py",
        "(2 * alpha - 1) * target",
        "(1 - 2 * alpha) * target",
        QUALITY,
    ),
    Mutation(
        "modeling/criterion/losses.py",
        "(target - logits.sigmoid()).abs()",
        "(1 - logits.sigmoid()).abs()",
        QUALITY,
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
    *(
        Mutation("modeling/criterion/ray_denoising.py", right, wrong, RAYS)
        for right, wrong in (
            ("seen, chosen = last >= 0", "seen, chosen = last > 0"),
            ("torch.where(sees, order, -1).amax(dim=1)", "sees.int().argmax(dim=1)"),
            ("(depth_m > 0) & (u", "(u"),
            ("(u < width)", "(u < height)"),
            ("boxes[:, 3:6].mean(-1) / 2", "boxes[:, 3:6].mean(-1)"),
            ("torch.where(seen[:, None], moved_m, 0.0)", "moved_m"),
            (".clamp(max=0))", ")"),
            ("nearest_step = nearest_step.abs()", "pass"),
            ("(2 * draws.uniform - 1) * self.max_positive_step", "draws.uniform"),
            ("amin(dim=1) > self.max_positive_step", "amin(dim=1) > self.radius"),
            ("cameras_m[stream, chosen]", "cameras_m[0, chosen]"),
            ("views.lidar_to_image[stream]", "views.lidar_to_image[torch.zeros_like(stream)]"),
        )
    ),
    Mutation("modeling/criterion/denoising.py", "~positive))", "positive))", RAYS),
    Mutation("modeling/criterion/denoising.py", "| seen[box]", "| ~seen[box]", RAYS),
    Mutation(
        "modeling/heads/denoising_queries.py",
        "(copy - self.groups).div",
        "copy.div",
        RAYS,
    ),
    Mutation(
        "modeling/detector.py",
        "frames[len(frames) - len(targets) :]",
        "frames[: len(targets)]",
        RAYS,
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
    Mutation("data/streaming_sampler.py", "position > 0, iteration", "True, iteration", DATA),
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
        "structures/global_boxes.py", "boxes[:, [4, 3, 5]]", "boxes[:, [3, 4, 5]]", EVALUATION
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
        "global_to_lidar = global_to_lidar.to(memory.time_s.dtype)",
        "global_to_lidar = global_to_lidar.float()",
        ("inference/test_far_poses.py",),
    ),
    Mutation(
        "modeling/temporal/memory.py",
        "lidar_to_global = lidar_to_global.to(memory.time_s.dtype)",
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
        "modeling/ops/geometry.py",
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
    # settings of a configuration
    Mutation(
        "engine/settings.py", "if own and key in ARGUMENTS:", "if key in ARGUMENTS:", SETTINGS
    ),
    Mutation("engine/settings.py", "-entry[0].count(", "entry[0].count(", SETTINGS),
    Mutation(
        "engine/settings.py",
        ', (cfg.train, "init_checkpoint")]',
        "]",
        SETTINGS,
    ),
    Mutation(
        "engine/allowed.py",
        "isinstance(value, int) and not isinstance(value, bool)",
        "isinstance(value, int)",
        SETTINGS,
    ),
    Mutation("engine/allowed.py", " and abs(value) < math.inf", "", SETTINGS),
    Mutation("engine/allowed.py", "and length in (None, len(value))", "", SETTINGS),
    Mutation("engine/setting_tables.py", "all(low < high", "any(low < high", SETTINGS),
    Mutation("engine/setting_tables.py", "whole(0, 2**32 - 1)", "whole(0, 2**32)", SETTINGS),
    Mutation(
        "configuration/yaml_file.py",
        '"${" in _PLAIN_TEXT.sub("", text)',
        '"${" in text and not _PLAIN_TEXT.match(text)',
        HOSTILE,
    ),
    Mutation("configuration/yaml_file.py", " or depth > _MAX_DEPTH:", ":", HOSTILE),
    Mutation("configuration/targets.py", " and not _within(home, _NOT)", "", HOSTILE),
    Mutation(
        "configuration/targets.py", 'startswith(f"{package}.")', "startswith(package)", HOSTILE
    ),
    Mutation("configuration/targets.py", "locate(target) is not found", "False", HOSTILE),
    Mutation("engine/overrides.py", "return not describes and ", "return ", CONFIG),
    Mutation("engine/overrides.py", "if depth + 1 == len(parts):", "if False:", CONFIG),
    Mutation("configuration/described.py", "given % needed", "needed % given", CONFIG),
    Mutation("configuration/described.py", '("head", "image_head")', '("head",)', CONFIG),
    # a run: what it needs, where it starts, how it ends
    Mutation("engine/recipe.py", "warmup_iters < self.max", "warmup_iters <= self.max", RECIPE),
    Mutation("evaluation/sample_tokens.py", "if token not in wanted", "if not token", OWN_SETS),
    Mutation("evaluation/devkit_boxes.py", "box.sample_token != token", "not token", OWN_SETS),
    Mutation(
        "engine/preflight.py",
        "files = numbered + len(beside) + 1",
        "files = numbered + 2",
        PREFLIGHT,
    ),
    Mutation(
        "evaluation/nuscenes_evaluator.py",
        "max_detections > MAX_BOXES_PER_SAMPLE",
        "max_detections < MAX_BOXES_PER_SAMPLE",
        PREFLIGHT,
    ),
    Mutation(
        "engine/preflight.py",
        "autocast(cfg.train.eval_precision",
        "autocast(cfg.train.precision",
        PREFLIGHT,
    ),
    Mutation("engine/preflight.py", "moments = 2 if", "moments = 1 if", PREFLIGHT),
    Mutation(
        "engine/preflight.py", "max(files * size - there, size)", "files * size - there", PREFLIGHT
    ),
    Mutation("engine/resume.py", "if start_iter > length:", "if start_iter >= length:", RESUME),
    Mutation(
        "engine/run_folder.py",
        '    "checkpoints.sha256",\n    "last_checkpoint",\n    "metrics.json",',
        '    "checkpoints.sha256",\n    "metrics.json",\n    "last_checkpoint",',
        RUN_FOLDER,
    ),
    Mutation("engine/run_folder.py", "            old.close()\n", "", RUN_FOLDER),
    Mutation(
        "engine/run_folder.py",
        'if file.read(1) != b"\\n":',
        'if file.read(1) == b"\\n":',
        RUN_FOLDER,
    ),
    Mutation("engine/run_folder.py", "    forget_logged()", "    None", RUN_FOLDER),
    Mutation("engine/signals.py", "if old is not signal.SIG_IGN}", "if True}", SIGNALS),
    Mutation(
        "engine/signals.py", "            self.deferring = before", "            pass", SIGNALS
    ),
    Mutation("engine/signals.py", "SIG_DFL if old is None else old", "SIG_DFL", SIGNALS),
    Mutation("engine/signals.py", "< _SAME_SIGNAL_S", "> _SAME_SIGNAL_S", SIGNALS),
    Mutation(
        "engine/agreement.py",
        "if own is not None and all(error is not None for _, error in errors):",
        "if own is not None:",
        ("engine/test_agreement.py",),
    ),
    Mutation(
        "engine/checkpoint_hook.py",
        "(self.trainer.iter + 1) % self._period",
        "self.trainer.iter % self._period",
        HOOKS,
    ),
    Mutation(
        "engine/checkpoint_hook.py",
        "files[: -self._max_to_keep]",
        "files[: 1 - self._max_to_keep]",
        HOOKS,
    ),
    Mutation(
        "engine/checkpoint_hook.py",
        "            if path.name != last:\n                path",
        "            if True:\n                path",
        HOOKS,
    ),
    Mutation(
        "engine/checkpoint_hook.py",
        "if self._saved != self._done:",
        "if self._saved is None:",
        HOOKS,
    ),
    Mutation("engine/stream_hooks.py", "* self._accumulate", "* 1", RESUME),
    Mutation("engine/checkpoint_hook.py", "if has_trained and not has_failed", "if False", HOOKS),
    Mutation("engine/checkpoint_hook.py", "forget(self.folder, path.name)", "pass", HOOKS),
    Mutation("engine/clock.py", "            return begun\n", "            return self\n", EXACT),
    Mutation("engine/stream_hooks.py", "begun_at(done, epochs)", "begun_at(done, 0.0)", EXACT),
    Mutation("engine/stream_hooks.py", "if start[0]:", "if False:", EXACT),
    Mutation("engine/stream_hooks.py", "== dict(state_dict)", "is not None", HOOKS),
    Mutation("engine/clock.py", "begun + (1 - begun) *", "begun +", EXACT),
    Mutation("engine/clock.py", "(self.epochs - epochs)", "self.epochs", EXACT),
    Mutation("solver/ema.py", "1.0 - self.decay_at", "self.decay_at", AVERAGE),
    Mutation("solver/ema.py", "-updates / self", "-iteration / self", AVERAGE),
    Mutation("solver/ema.py", "updates <= 0", "updates < 0", AVERAGE),
    Mutation("solver/ema.py", "_point_to(self._parameters, weights)", "pass", AVERAGE),
    Mutation("solver/ema.py", "get(id(value), value.detach())", "get(0, value.detach())", AVERAGE),
    Mutation("engine/ema_hook.py", "== self._skipped", "is not None", AVERAGE[1:]),
    Mutation("engine/ema_hook.py", "self.trainer.iter + 1", "self.trainer.iter", AVERAGE[1:]),
    Mutation("engine/ema_hook.py", "self._average.restart()", "pass", AVERAGE[1:]),
    Mutation(
        "checkpoint/loading.py", " and not resuming)", ")", ("checkpoint/test_average_loading.py",)
    ),
    Mutation("engine/draws.py", "[seed, iteration, micro_step, rank]", "[seed, 0, 0, rank]", EXACT),
    Mutation(
        "engine/draws.py",
        "[seed, iteration, micro_step, rank]",
        "[0, iteration, micro_step, rank]",
        EXACT,
    ),
    Mutation(
        "engine/draws.py",
        "[seed, iteration, micro_step, rank]",
        "[seed, iteration, micro_step, 0]",
        EXACT,
    ),
    Mutation("engine/draws.py", "    np.random.seed(int(state[1] >> np.uint64(32)))\n", "", EXACT),
    Mutation("engine/draws.py", "    random.seed(int(state[2]))\n", "", EXACT),
    Mutation("engine/lane_memory.py", "first : first + lanes", ":lanes", LANES),
    Mutation("engine/lane_memory.py", ", copy=True", "", LANES),
    Mutation("engine/lane_memory.py", "value.dtype != like.dtype or ", "", LANES),
    Mutation("engine/lane_memory.py", "value.shape[1:2] >= like.shape[1:2]", "True", LANES),
    Mutation("engine/trainer.py", '["total_loss"] / self._accumulate', '["total_loss"]', EXACT),
    Mutation("engine/trainer.py", "if micro_step == 0:", "if True:", EXACT),
    Mutation("engine/trainer.py", "if micro_step == 0:", "if False:", EXACT),
    Mutation(
        "engine/trainer.py",
        "if micro_step + 1 < self._accumulate",
        "if False",
        ("engine/test_accumulation.py",),
    ),
    Mutation("engine/distributed.py", "dist.broadcast(buffer, src=0)", "pass", MANY),
    Mutation("engine/trainer.py", "self.iter == 0 or ", "", MANY),
    Mutation("engine/trainer.py", "            buffer.copy_(value)", "            pass", MANY),
    Mutation(
        "engine/trainer.py",
        'state_dict.get("consecutive_skips", 0)',
        "0",
        ("engine/test_exact_state.py", "engine/test_trainer.py"),
    ),
    Mutation("engine/resume.py", "if reason is None:", "if True:", EXACT),
    Mutation("engine/resume.py", "[Path(last), *reversed(older)]", "[Path(last), *older]", EXACT),
    Mutation("engine/resume.py", "if path.name not in later]", "]", EXACT),
    Mutation("engine/resume.py", "if not streams.continues:", "if False:", EXACT),
    Mutation("checkpoint/manifest.py", "if k != name and", "if", MANIFEST),
    Mutation("checkpoint/manifest.py", "if name not in listed", "", MANIFEST),
    Mutation("checkpoint/manifest.py", " and Path(folder, k).exists()", "", MANIFEST),
    Mutation("checkpoint/background.py", "tensor.detach()", "tensor.detach() * 1.0", BACKGROUND),
    Mutation("checkpoint/background.py", "buffer.dtype != tensor.dtype", "False", BACKGROUND),
    Mutation("engine/checkpoint_hook.py", "        self._writer.raise_error()", "", BACKGROUND),
    Mutation("engine/checkpoint_hook.py", "self._copy.take(content)", "content", BACKGROUND),
    Mutation("engine/checkpoint_hook.py", "if is_last:", "if True:", BACKGROUND),
    Mutation(
        "checkpoint/loading.py",
        "note if is_new else lambda digest: forget()",
        "note",
        EXACT,
    ),
    Mutation(
        "engine/evaluation.py",
        "resume and checkpointer.has_checkpoint()",
        "checkpointer.has_checkpoint()",
        ("engine/test_evaluation.py", "engine/test_resume.py"),
    ),
    Mutation(
        "engine/evaluation.py",
        "if cfg.report.memory_off and memory:",
        "if cfg.report.memory_off:",
        ("engine/test_evaluation.py",),
    ),
    # hooks of the user, freezing, the best checkpoint
    Mutation("engine/hook_states.py", "if seen[name] == 1 else", "if seen[name] else", OWN_HOOKS),
    Mutation(
        "engine/hook_states.py", "        elif hook.state_dict():", "        else:", OWN_HOOKS
    ),
    Mutation("engine/hook_states.py", "return plain(value.item())", "return value", OWN_HOOKS),
    Mutation(
        "engine/configured_hooks.py", "if not isinstance(hook, HookBase):", "if False:", OWN_HOOKS
    ),
    Mutation("engine/configured_hooks.py", "and not hasattr(", "and hasattr(", OWN_HOOKS),
    Mutation(
        "engine/train_loop.py",
        "for hook in added if has_state(hook)",
        "for hook in added[:0]",
        OWN_HOOKS,
    ),
    Mutation(
        "engine/train_loop.py",
        "for hook in added if not has_state(hook)",
        "for hook in added[:0]",
        OWN_HOOKS,
    ),
    Mutation(
        "engine/train_loop.py",
        "[*on_all_ranks(lambda: configured_hooks(cfg)), *more_hooks]",
        "[*more_hooks, *on_all_ranks(lambda: configured_hooks(cfg))]",
        OWN_HOOKS,
    ),
    Mutation(
        "configuration/targets.py",
        '"detectron2.engine.hooks.TorchMemoryStats"',
        '"detectron2.engine.hooks.AutogradProfiler"',
        OWN_HOOKS,
    ),
    Mutation("configuration/targets.py", "sorted(set(modules))", "[]", OWN_HOOKS),
    Mutation("engine/trainer.py", "min(self.iter, self.max_iter - 1)", "self.iter", BEST),
    Mutation("engine/freeze.py", "trains = iteration >= step", "trains = iteration > step", FREEZE),
    Mutation("engine/freeze.py", "max(iters, self._until.get(parameter, 0))", "iters", FREEZE),
    Mutation(
        "engine/freeze.py",
        "for p, step in self._until.items() if p.requires_grad}",
        "for p, step in self._until.items()}",
        FREEZE,
    ),
    Mutation(
        "engine/freeze.py",
        "for k, p in model.named_parameters() if p.requires_grad}",
        "for k, p in model.named_parameters()}",
        FREEZE,
    ),
    Mutation(
        "engine/freeze.py",
        "        self.trainer.model = None\n        self.trainer.set_model(self._wrap())\n",
        "",
        FREEZE,
    ),
    Mutation(
        "engine/freeze.py", "p.requires_grad and p not in self._until]", "p.requires_grad]", FREEZE
    ),
    Mutation("engine/train_loop.py", "    freezing.at(0)", "    pass", FREEZE),
    Mutation(
        "engine/param_table.py",
        'cfg.train.get("freeze") or ()',
        "()",
        ("engine/test_param_table.py",),
    ),
    Mutation("engine/best_checkpoint.py", "if self.trainer.iter > 0:", "if False:", BEST),
    Mutation("engine/best_checkpoint.py", "        self._checkpoints.wait()", "        pass", BEST),
    Mutation("engine/best_checkpoint.py", "            self._checkpoints.save_now()\n", "", BEST),
    Mutation("engine/best_checkpoint.py", "if not math.isfinite(value):", "if False:", BEST),
    Mutation("engine/best_checkpoint.py", "value > self._best if", "value >= self._best if", BEST),
    Mutation(
        "engine/best_checkpoint.py", "else value < self._best", "else value <= self._best", BEST
    ),
    Mutation(
        "engine/best_checkpoint.py",
        "BEST_CHECKPOINT, is_last=False",
        "BEST_CHECKPOINT, is_last=True",
        BEST,
    ),
    Mutation("engine/best_checkpoint.py", "            self._best = value\n", "", BEST),
    Mutation(
        "engine/best_checkpoint.py",
        "if isinstance(value, Real)",
        "if isinstance(value, float)",
        BEST,
    ),
    Mutation(
        "engine/best_checkpoint.py",
        "(reason := damage(path)) is not None",
        "(reason := damage(path)) == 1",
        BEST,
    ),
    Mutation("engine/best_checkpoint.py", " if same else None", "", BEST),
    Mutation(
        "engine/checkpoint_hook.py",
        "self._done = self._saved = self.trainer.iter - 1",
        "pass",
        BEST,
    ),
    Mutation(
        "engine/run_folder.py",
        '    "model_best.pth",\n    "model_[0-9]*.pth",\n    "report.html"',
        '    "model_[0-9]*.pth",\n    "report.html"',
        BEST,
    ),
    Mutation("engine/preflight.py", "beside.append(BEST_CHECKPOINT)", "pass", BEST),
    # several processes
    Mutation(
        "engine/group.py",
        "if kinds[place.rank] != kinds[0]:",
        "if kinds[place.rank] != kinds[-1]:",
        GROUP,
    ),
    Mutation(
        "engine/group.py",
        "            if machine == place.machine:\n",
        "            if machine == machines[0]:\n",
        GROUP,
    ),
    Mutation("engine/processes.py", "finish_writes(_WRITE_S)", "pass", PROCESSES),
    Mutation("engine/watch.py", "else [place.rank - 1]", "else []", WATCH),
    Mutation("engine/group.py", "if len(same) > 1:", "if len(same) > 2:", GROUP),
    Mutation("engine/group.py", "if local_rank >= count:", "if local_rank > count:", GROUP),
    Mutation(
        "engine/place.py",
        "if not 0 <= rank < world_size:",
        "if not 0 <= rank <= world_size:",
        PLACE,
    ),
    Mutation(
        "engine/place.py",
        "0 <= machine_rank < num_machines",
        "0 <= machine_rank <= num_machines",
        PLACE,
    ),
    Mutation(
        "engine/processes.py", "rank=machine_rank * num_processes,", "rank=machine_rank,", PROCESSES
    ),
    Mutation("engine/processes.py", "if status[index] != _LOST", "if status[index]", PROCESSES),
    Mutation("engine/processes.py", "(None, 0, *_ASKED_TO_END)", "(None, 0)", PROCESSES),
    Mutation(
        "engine/failures.py",
        "(dist.is_initialized() and _LOST.search(text))",
        "_LOST.search(text)",
        PROCESSES,
    ),
    # samples and tables of strangers
    Mutation("structures/sample_checks.py", " | (np.linalg.det(turns) < 0)", "", SAMPLES),
    Mutation(
        "structures/sample_checks.py",
        "cx >= width or cy >= height",
        "cx >= height or cy >= width",
        SAMPLES,
    ),
    Mutation("structures/sample_checks.py", "if alike and upright and", "if upright and", SAMPLES),
    Mutation("structures/sample_checks.py", "if alike and upright and", "if alike and", SAMPLES),
    Mutation(
        "data/training_checks.py", "    seen |= not mapper.use_valid_flag\n", "", TRAINING_CHECKS
    ),
    Mutation(
        "data/training_checks.py",
        "_RANGE_SLACK and high >=",
        "_RANGE_SLACK or high >=",
        TRAINING_CHECKS,
    ),
    Mutation(
        "data/training_checks.py", "per_class(seen & ~near)", "per_class(~near)", TRAINING_CHECKS
    ),
    Mutation(
        "data/nuscenes/picture_files.py", '".." in name.split("/")', 'name.startswith("..")', TABLES
    ),
    Mutation(
        "data/nuscenes/picture_files.py", 'has_drive or "\\\\" in name or', "has_drive or", TABLES
    ),
    Mutation("data/nuscenes/cache_layout.py", " or (lengths < 0).any()", "", CACHE),
    Mutation(
        "data/nuscenes/cache_layout.py",
        "category.max() < len(categories)",
        "category.max() <= len(categories)",
        CACHE,
    ),
    Mutation("data/nuscenes/columns.py", "wrong = other | (", "wrong = (", TABLES),
    Mutation(
        "data/nuscenes/columns.py",
        "_LONGEST_INTERVAL_US) & (np.diff(scene_of_frame) == 0)",
        "_LONGEST_INTERVAL_US)",
        TABLES,
    ),
    Mutation(
        "data/nuscenes/sensors.py", "(points >= sizes)", "(points >= sizes[..., ::-1])", TABLES
    ),
    Mutation(
        "data/nuscenes/sensors.py", "        bad[:, :-num_cameras] = False", "        pass", TABLES
    ),
    Mutation("data/nuscenes/sensors.py", "far = (slot >= 0) & (np", "far = (np", TABLES),
    Mutation(
        "data/nuscenes/sensors.py",
        "timestamp_us[:, None]).argmin(",
        "timestamp_us[:, None]).argmax(",
        TABLES,
    ),
    Mutation("data/nuscenes/category_names.py", ", likeness=0.85)", ")", TRAINING_CHECKS),
    Mutation(
        "data/nuscenes/category_names.py",
        "if len(absent) == len(classes):",
        "if absent:",
        TRAINING_CHECKS,
    ),
    # what an evaluation needs and writes
    Mutation(
        "evaluation/devkit_needs.py",
        "if len(named) > 1:",
        "if len(named) > 2:",
        ("evaluation/test_devkit_needs.py",),
    ),
    Mutation(
        "evaluation/devkit_needs.py", "        if scoring.is_official:", "        if True:", DEVKIT
    ),
    Mutation(
        "evaluation/sound_boxes.py", "> MAX_BOXES_PER_SAMPLE", ">= MAX_BOXES_PER_SAMPLE", BOXES
    ),
    Mutation(
        "evaluation/sound_boxes.py",
        "int(labels.max()) < num_classes",
        "int(labels.max()) <= num_classes",
        BOXES,
    ),
    Mutation("evaluation/sound_boxes.py", "[:, 3:6] > 0).all", "[:, 3:6] > 0).any", BOXES),
    Mutation("evaluation/summary_files.py", "len(recall) != len(precision) or ", "", RESULTS),
    Mutation("evaluation/result_records.py", 'field == "velocity" and all', "all", RESULTS),
    Mutation("evaluation/result_records.py", " and abs(value) < 2**63", "", RESULTS),
    Mutation(
        "checkpoint/settings.py",
        "names[0] != names[1]",
        "set(names[0]) != set(names[1])",
        ("checkpoint/test_settings.py",),
    ),
    # files, texts and the end of a tool
    Mutation(
        "files.py",
        "        temporary.chmod(usual_rights)\n",
        "",
        ("test_replacing.py", "test_writers.py"),
    ),
    Mutation("files.py", "errno.EDQUOT, ", "", ("test_replacing.py",)),
    Mutation(
        "files.py", "        _remove(temporary)\n\n", "        pass\n\n", ("test_replacing.py",)
    ),
    Mutation(
        "errors.py", "        logging.Handler.handleError = handle  #", "        pass  #", ERRORS
    ),
    Mutation(
        "errors.py", "error: {printable(one_line(error))}", "error: {one_line(error)}", ERRORS
    ),
    Mutation("errors.py", "event & select.POLLERR", "event & select.POLLOUT", ERRORS),
    Mutation("texts.py", '.lstrip(".")', "", ("test_texts.py",)),
    Mutation("texts.py", "len(texts) - limit} more", "len(texts)} more", ("test_texts.py",)),
    Mutation(
        "progress.py", "            self._said = time.monotonic()\n", "", ("test_progress.py",)
    ),
    Mutation(
        "report/frames.py",
        "if num_true_boxes < len(ranked)",
        "if num_true_boxes <= len(ranked)",
        ("report/test_frames.py",),
    ),
    Mutation(
        "report/frames.py",
        "is_taken = record.scene_name in others",
        "is_taken = False",
        ("report/test_frames.py",),
    ),
    # more of the memory and its geometry
    Mutation(
        "modeling/temporal/memory.py",
        "torch.where(flag, value[:, :length], void)",
        "flag * value[:, :length] + ~flag * void",
        MEMORY,
    ),
    Mutation(
        "modeling/temporal/memory.py",
        "keep(moved.center_m, F.pad(start_points_m, (0, 0, 0, unused)))",
        "keep(moved.center_m) + F.pad(start_points_m, (0, 0, 0, unused))",
        MEMORY,
    ),
    Mutation("export/cameras.py", "last, inner = points", "inner, last = points", EXPORT),
    Mutation("export/frames.py", "sin * c + cos * s", "sin * c - cos * s", EXPORT),
    Mutation(
        "export/temporal_graph.py",
        "(pre_memory_egopose[:, 0, 3, 3] > 0.5) & ",
        "",
        EXPORT,
    ),
    Mutation(
        "modeling/backbone/padded_attention.py", "[math.log(padded)]", "[float(padded)]", EXPORT
    ),
    Mutation("export/node.py", "- stamp", "+ stamp", EXPORT),
    # graphs in place of the detector
    Mutation("export/runner.py", "cos, -sin)", "cos, sin)", RUNNER),
    Mutation("export/frames.py", "vx * s + vy * c", "vx * s - vy * c", RUNNER),
    Mutation("modeling/image/normalization.py", "images.flip(-3)", "images.flip(-2)", RUNNER),
    Mutation(
        "export/runner.py",
        "matrix_product(self._lidar_to_graph, image_to_lidar)",
        "image_to_lidar",
        RUNNER,
    ),
    Mutation(
        "export/runner.py",
        '"data_ego_pose": _array(self._graph_to_lidar',
        '"data_ego_pose": _array(self._lidar_to_graph',
        RUNNER,
    ),
    Mutation("export/runner.py", "(learned, 0)", "(0, learned)", RUNNER),
    Mutation("export/runner.py", "best[row, entry] = far.argmin()", "pass", RUNNER),
    Mutation("export/description.py", "if here != there:", "if False:", SESSIONS),
    Mutation("export/sessions.py", "threads or torch.get_num_threads()", "1", SESSIONS),
    Mutation("inference/exported.py", "memory=said.remembers", "memory=True", EXPORTED),
    Mutation("inference/exported.py", "said.frame_period_s,", "0.5,", EXPORTED),
    Mutation("inference/exported.py", "said.cameras, spec", "spec.cameras, spec", EXPORTED),
    Mutation("modeling/ops/geometry.py", "    x = x.clamp(0, 1)\n", "", MEMORY),
    Mutation(
        "modeling/ops/geometry.py",
        "limits[:3]) / (limits[3:] - limits[:3])",
        "limits[:3]) / limits[3:]",
        MEMORY,
    ),
    # a trained detector, and what its checkpoint says of its training set
    # the predictor, and drives that are played
    Mutation("inference/continuity.py", "+ passed / 2 >=", ">=", PREDICTING),
    Mutation("inference/continuity.py", "if passed_s < 0:", "if passed_s < -5:", PREDICTING),
    Mutation("inference/continuity.py", "if turn >", "if 0 * turn >", PREDICTING),
    Mutation("inference/predictor.py", "if step.remember:", "if True:", PREDICTING),
    Mutation("inference/predictor.py", "step.anew is None and self", "self", PREDICTING),
    Mutation("inference/preparation.py", "moved.get(c.name, np.eye(4))", "np.eye(4)", PREDICTING),
    Mutation("inference/preparation.py", "rig.reference_to_vehicle or", "", PREDICTING),
    Mutation("inference/pictures.py", "planes if is_rgb else planes[::-1]", "planes", PREDICTING),
    Mutation(
        "inference/playing/play.py", "progress.frames if sink.can_append else 0", "0", PLAYING
    ),
    Mutation("inference/playing/play.py", "isinstance(ready, NoPictureError)", "ready", PLAYING),
    Mutation("inference/run_files.py", "name != os.path.basename(name) or ", "", LOADING),
    Mutation("inference/run_files.py", "if reason is not None:", "if False:", LOADING),
    Mutation(
        "inference/run_files.py",
        "path = folder / path.name if os.path.isfile(folder / path.name) else path",
        "path = path if os.path.isfile(path) else folder / path.name",
        LOADING,
    ),
    Mutation("inference/recipe_parts.py", '"token_ratio", 1) != 1', '"x", 1) != 1', LOADING),
    Mutation(
        "inference/recipe_parts.py", "torch.random.fork_rng(devices=[])", "torch.no_grad()", LOADING
    ),
    Mutation("inference/loading.py", "weights=which, ", "", LOADING),
    Mutation("inference/loading.py", "copy.deepcopy(config), path", "config, path", LOADING),
    Mutation("inference/loading.py", '"precision": precision,', "", LOADING),
    Mutation(
        "inference/loading.py",
        "REFERENCE_TO_VEHICLE, spec.lidar_to_ego)",
        "REFERENCE_TO_VEHICLE, None)",
        LOADING,
    ),
    Mutation("checkpoint/settings.py", "and getattr(model, name, None) is None", "", RECORDED),
    Mutation(
        "checkpoint/settings.py", "math.hypot(*value[3:])", "math.hypot(*value[4:])", RECORDED
    ),
    Mutation(
        "checkpoint/loading.py",
        "        if self._require_all or resuming:  #",
        "        if True:  #",
        RECORDED,
    ),
    Mutation("data/nuscenes/typical.py", "counts.max()].min()", "counts.max()].max()", USUAL),
    Mutation("data/nuscenes/typical.py", "np.delete(steps, ends)", "steps", USUAL),
    # the checks of a rig and its drives
    Mutation(
        "inference/checks/camera_axes.py", "round(float(np.mean", "-round(float(np.mean", RIGS
    ),
    Mutation("inference/checks/camera_axes.py", "pose[2, 3] > LOWEST_M", "True", RIGS),
    Mutation(
        "inference/checks/camera_names.py", "_ASIDE if side == 0 else -_ASIDE", "-_ASIDE", RIGS
    ),
    Mutation("inference/checks/rig.py", "_turned(look, -degrees)", "_turned(look, degrees)", RIGS),
    Mutation(
        "inference/checks/rig.py",
        "    if not found:\n        found = _other",
        "    if True:\n        found = _other",
        RIGS,
    ),
    Mutation("inference/checks/poses.py", "cosines.sum() > 0", "True", DRIVES),
    Mutation("inference/checks/poses.py", "and backward < 0.9 * way", "", DRIVES),
    Mutation(
        "inference/checks/poses.py",
        "angles[straight], lengths[straight]",
        "angles, lengths",
        DRIVES,
    ),
    Mutation(
        "inference/checks/trajectory.py",
        "np.minimum(reach, np.minimum(number, number[::-1]))",
        "np.minimum(1, np.minimum(number, number[::-1]))",
        DRIVES,
    ),
    Mutation("inference/checks/trajectory.py", "(way, way % (2 * np.pi))", "(way,)", DRIVES),
    Mutation("inference/checks/times.py", "max(MAX_GAP_S, 3", "min(MAX_GAP_S, 3", DRIVES),
    Mutation("inference/checks/drive.py", "and not scene.far", "", CHECK_RIG),
    Mutation("inference/checks/drive.py", "if count == 0", "if count < 2", CHECK_RIG),
    Mutation("inference/checks/boxes.py", "score >= least_score", "score > 0", CHECK_RIG),
    Mutation("visualization/camera_panels.py", "0.5 * scale - 0.5", "0.0", PANELS),
    Mutation("visualization/rig_from_above.py", "* (1, -1)", "* (-1, 1)", PANELS),
    Mutation(
        "visualization/camera_grid.py",
        "row.sort(key=lambda camera: -camera",
        "row.sort(key=lambda camera: camera",
        PANELS,
    ),
    # tracking: the published trackers
    Mutation("tracking/greedy.py", "distances <= self", "distances < self", GREEDY),
    Mutation("tracking/greedy.py", "seen.scores >= self", "seen.scores > self", GREEDY),
    Mutation("tracking/greedy.py", "lost.ages < self", "lost.ages <= self", GREEDY),
    Mutation("tracking/greedy.py", "lost.last_seen_s < self", "lost.first_seen_s < self", GREEDY),
    Mutation("tracking/greedy.py", "rows[~good]])", "rows[:0]])", GREEDY),
    Mutation("tracking/greedy.py", "next_id=begun.next_id", "next_id=table.next_id", GREEDY),
    Mutation("tracking/sightings.py", "tracks.actives + 1", "tracks.actives", GREEDY),
    Mutation("tracking/sightings.py", "* tracks.lags_s[:, None]", "* 0.5", GREEDY),
    Mutation("tracking/matching.py", "row != last and ", "", GREEDY),
    Mutation("tracking/matching.py", "_FORBIDDEN = 1e18", "_FORBIDDEN = 1e3", GREEDY),
    Mutation("tracking/trails.py", "_STEP_S = 0.24", "_STEP_S = 0.0", TRAILS),
    Mutation(
        "tracking/trails.py",
        "trails[:, -1] = centers_m\n    return trails, np.where",
        "return trails, np.where",
        TRAILS,
    ),
    # tracking: ids in the memory, and what is scored of them
    Mutation(
        "tracking/lineage.py",
        "missed_m < self._gates_m(table, timestamp_s)[rows]",
        "missed_m < np.inf",
        LINEAGE,
    ),
    Mutation("tracking/lineage.py", " - self.rules.memory_bonus_m", "", LINEAGE),
    Mutation("tracking/lineage.py", "-table.sightings[rows], missed_m)", "missed_m)", LINEAGE),
    Mutation("tracking/lineage.py", "query_ids=ids[stand_for]", "query_ids=ids", LINEAGE),
    Mutation("tracking/lineage.py", "        kept[seen] = False\n", "", LINEAGE),
    Mutation("evaluation/devkit_tracks.py", "if str(id_) in ids", "if id_ in ids", TRACK_FILES),
    Mutation("evaluation/devkit_tracks.py", "if name != first:", "if False:", TRACK_FILES),
    Mutation(
        "evaluation/devkit_tracks.py",
        "scene, known = record.scene_token, {}",
        "scene = record.scene_token",
        TRACK_FILES,
    ),
    Mutation(
        "inference/tracking.py", "sound.nonzero()[:, 0].numpy()[boxes.rows]", "boxes.rows", IDS
    ),
    Mutation(
        "inference/tracking.py", "ids[0, step.queries] =", "ids[0, : len(step.queries)] =", IDS
    ),
    Mutation(
        "modeling/temporal/memory.py",
        "torch.where(given == UNCHANGED, newest, given)",
        "given",
        IDS,
    ),
    Mutation("modeling/temporal/memory.py", "keep(moved.lineage, NO_LINEAGE)", "kept.lineage", IDS),
)
