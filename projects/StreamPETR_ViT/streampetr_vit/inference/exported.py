"""A detector from the folder of an export, in place of a run's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf.errors import OmegaConfBaseException

from streampetr_vit.checkpoint.manifest import digest_of
from streampetr_vit.configuration.reading import read_config
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.errors import InputError, MissingFileError, one_line
from streampetr_vit.export.describing import Origin, describe
from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import CONFIG, GRAPHS, PARITY
from streampetr_vit.export.runner import OnnxDetector
from streampetr_vit.export.sessions import Sessions
from streampetr_vit.inference.loading import LoadedDetector
from streampetr_vit.inference.recipe_parts import identity_of, image_aug_of, spec_of
from streampetr_vit.inference.run_files import StrPath
from streampetr_vit.json_files import read_json
from streampetr_vit.structures import DatasetSpec, Pose
from streampetr_vit.texts import name_list, shown


def load_exported(
    folder: StrPath,
    *,
    device: str = "auto",
    trusted: Sequence[str] = (),
) -> LoadedDetector:
    """Opens the graphs of an export, which take the place of the detector in PyTorch.

    Args:
        folder: that tools/export_onnx.py has written.
        device: "auto" and "cpu" take the CPU; "cuda" and "cuda:N" a GPU, with a build of
            onnxruntime that has CUDA.
        trusted: packages that its config.yaml may call beside those that recipes use.

    Raises:
        MissingFileError, ConfigError: there is no such folder, a file of it is missing, or its
            configuration cannot be read.
        InputError: its files are not of one export; see also `Sessions.open`.
    """
    folder = _folder(folder)
    detector = OnnxDetector(Sessions.open(folder, device))
    said = detector.description
    where = str(folder / CONFIG)
    cfg = read_config(where, trusted)
    try:
        image_aug, spec = image_aug_of(cfg), spec_of(cfg)
        check_recipe(said, spec, image_aug, where)
        digests = {name: digest_of(folder / name) for name in GRAPHS}
        _check_unaltered(folder, digests)
        identity = identity_of(cfg, {"graphs": digests})
    except OmegaConfBaseException as error:
        raise InputError(f"{where} cannot be used: {one_line(error)}") from error
    return LoadedDetector(
        detector,
        image_aug,
        spec,
        Pose.of_matrix(said.lidar_to_base_link_matrix()),
        said.frame_period_s,
        precision="float32",  # of what is around the graphs, and of what goes in and comes out
        memory=said.remembers,
        weights=str(folder),
        identity=identity,
    )


def description_of(
    loaded: LoadedDetector, origin: Origin, frame: str, precision: str
) -> Description:
    """What the graphs of a detector shall say of themselves; see `Description`."""
    return describe(
        loaded.detector,
        loaded.spec,
        loaded.image_aug.final_size,
        loaded.reference_to_vehicle,
        loaded.frame_period_s,
        loaded.memory,
        origin,
        frame=frame,
        precision=precision,
    )


def _folder(given: StrPath) -> Path:
    # An empty text would be the present folder.
    is_path = isinstance(given, (str, os.PathLike)) and str(given) != ""
    folder = Path(given).expanduser() if is_path else None
    if folder is None or not folder.is_dir():
        what = shown(given if folder is None else str(folder), limit=300)
        raise MissingFileError(
            f"onnx={what} is no folder: give one that tools/export_onnx.py has written"
        )
    return folder


def check_recipe(
    said: Description, spec: DatasetSpec, image_aug: ImageAugmentation, where: str
) -> None:
    """Compares what graphs say of themselves with the classes, cameras and pictures of a recipe.

    Raises:
        InputError: they differ.
    """
    check_same("classes", said.classes, spec.class_names, where)
    check_same("cameras", said.cameras, spec.cameras, where)
    check_same("image_size", said.image_size, image_aug.final_size, where)


def check_same(name: str, exported: Sequence[object], recipe: Sequence[object], where: str) -> None:
    """Compares what graphs were exported with to what a recipe says.

    Raises:
        InputError: they differ.
    """
    if tuple(exported) != tuple(recipe):
        raise InputError(
            f"the exported graphs have the {name} {name_list(exported)}, and {where} has "
            f"{name_list(recipe)}: take the recipe that was exported, or export this one"
        )


def refuse_pytorch_options(
    *,
    run: object,
    config: object,
    weights: object,
    ema: bool,
    precision: str,
    cuda_graph: bool,
) -> None:
    """Refuses options of the detector in PyTorch, which graphs cannot follow.

    Raises:
        InputError: one of them is given; names it.
    """
    for name, value in (("run", run), ("config", config), ("weights", weights)):
        if value is not None:
            raise InputError(
                f"onnx and {name}: exported graphs hold their weights and configuration, so leave "
                f"out {name}, or leave out onnx to run the detector in PyTorch"
            )
    if ema:
        raise InputError(
            "onnx with ema=True: the weights were chosen when the graphs were exported; export "
            "the average with tools/export_onnx.py --ema"
        )
    if precision not in ("auto", "float32"):
        raise InputError(
            f"onnx with precision={shown(precision)}: graphs compute as they were exported; "
            "export them with tools/export_onnx.py --precision fp16-backbone"
        )
    if cuda_graph:
        raise InputError("onnx with cuda_graph=True: that is of PyTorch; leave one of them out")


def _check_unaltered(folder: Path, digests: Mapping[str, str]) -> None:
    """Compares the graphs with the checksums in parity.json, where there are some."""
    record = read_json(folder / PARITY) if (folder / PARITY).is_file() else None
    written = record.get("sha256") if isinstance(record, dict) else None
    for name, digest in digests.items():
        if isinstance(written, dict) and written.get(name) != digest:
            raise InputError(
                f"{folder / name} is damaged, or of another export: its SHA-256 begins with "
                f"{digest[:12]}, and in {PARITY} with {shown(str(written.get(name))[:12])}; copy "
                "the folder again, or export anew with tools/export_onnx.py. (If you have changed "
                f"the graph on purpose, remove {PARITY}, which does not speak of it.)"
            )
