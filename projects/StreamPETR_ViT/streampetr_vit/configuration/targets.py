"""Which callables a configuration in YAML may name as `_target_`.

A target is called with the values beside it, so a file from a stranger could run `os.system`. The
table holds the packages that recipes use. The object behind a name decides, not the name:
`streampetr_vit.data.build.os.system` begins well and is `os.system`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Sequence
from types import FunctionType
from typing import Any

from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, ListConfig

from streampetr_vit.errors import ConfigError

# Classes that are defined in these packages may be called: layers, networks, optimisers, values.
_CLASSES_OF = (
    "torch.nn",
    "torch.optim",
    "detectron2.layers",
    "detectron2.modeling",
    "timm.layers",
    "timm.models",
    "streampetr_vit.modeling",
    "streampetr_vit.structures",
)
# Functions too. Not those of timm: they download, and read pickled files.
_FUNCTIONS_OF = ("detectron2.modeling.backbone", "streampetr_vit.solver")
# Single ones of packages that also read and write files.
_SINGLE = (
    # Of detectron2's hooks, the others write where they are told to, or call what they are given.
    "detectron2.engine.hooks.TorchMemoryStats",
    "streampetr_vit.data.build.build_test_loader",
    "streampetr_vit.data.build.build_train_loader",
    "streampetr_vit.data.build.build_window_loader",
    "streampetr_vit.data.mapper.NuScenesMapper",
    "streampetr_vit.data.transforms.ImageAugmentation",
    "streampetr_vit.data.transforms.SceneAugmentation",
    "streampetr_vit.engine.distributed.loss_reduction",
    "streampetr_vit.evaluation.nuscenes_evaluator.NuScenesEvaluator",
    "streampetr_vit.evaluation.nuscenes_tracking_evaluator.NuScenesTrackingEvaluator",
    "streampetr_vit.inference.bare_model.BareStreamPETR",
    "streampetr_vit.tracking.greedy.GreedyRules",
    "streampetr_vit.tracking.lineage.LineageRules",
)
# Loads weights of any kind, and builds what another registry has.
_NOT = ("detectron2.modeling.mmdet_wrapper",)
_IS_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_ROOMS = ("data", "engine.distributed", "evaluation", "inference", "solver", "tracking")
# Packages that may be imported to look at what a name stands for.
_IMPORTABLE = (*_CLASSES_OF, "detectron2.engine", *(f"streampetr_vit.{room}" for room in _ROOMS))


def check_targets(cfg: DictConfig, path: str, trusted: Sequence[str] = ()) -> None:
    """Raises ConfigError for a `_target_` of a YAML file that is not allowed.

    Args:
        cfg: as it was read, before overrides: those are typed by the user.
        path: of the file, for the message.
        trusted: further packages, from --trust.
    """
    for where, target in _targets(cfg, ""):
        problem = _problem(target, trusted)
        if problem is not None:
            raise ConfigError(
                f"{path}: {where}={target!r} {problem}. A YAML configuration may call what recipes "
                "use: layers and networks of streampetr_vit, torch.nn, detectron2 and timm, "
                "optimisers of torch.optim, the loaders and the evaluator. If you know what it "
                f"does, allow its package by --trust PACKAGE{_advice(where, target)}, in Python by "
                "trusted=['PACKAGE']"
            )


def trust_options(cfg: DictConfig) -> list[str]:
    """The options with which a run's config.yaml may name the run's own classes again."""
    modules = []
    for _, target in _targets(cfg, ""):
        name = target if isinstance(target, str) else _convert_target_to_string(target)
        if _IS_NAME.fullmatch(name) and _problem(name, ()) is not None:
            modules.append(name.rpartition(".")[0])
    return [f"--trust {module}" for module in sorted(set(modules))]


def _advice(where: str, target: Any) -> str:
    """What to type for a hook, which most often is the user's own."""
    if not (where.startswith("train.hooks.") and _IS_NAME.fullmatch(str(target))):
        return ""
    return f" (a hook of your own: --trust {target.rpartition('.')[0]})"


def _targets(node: Any, where: str) -> Iterable[tuple[str, Any]]:
    """Every `_target_` below a node with its path; interpolations as they stand."""
    if not isinstance(node, (DictConfig, ListConfig)) or node._is_interpolation():
        return
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        child = node._get_node(key)
        path = f"{where}.{key}".lstrip(".")
        if key == "_target_":
            yield path, child._value() if hasattr(child, "_value") else child
        yield from _targets(child, path)


def _problem(target: Any, trusted: Sequence[str]) -> str | None:
    """What speaks against a target; None if it may be called."""
    if not isinstance(target, str) or not _IS_NAME.fullmatch(target):
        return "is no name of the form package.module.Class"
    if not _within(target, (*_IMPORTABLE, *trusted)):
        return "is not of a package that is allowed"
    found = _find(target, (*_IMPORTABLE, *trusted))
    if found is None:
        return "does not exist there: no class or function has this name"
    if not isinstance(found, (type, FunctionType)):
        return f"is a {type(found).__name__}, neither a class nor a function"
    if locate(target) is not found:  # what will be called; imports nothing further
        return "stands for two things, a module's part and a module: write the full name"
    home = f"{found.__module__}.{found.__qualname__}"  # where it is defined, by whatever name
    if _within(home, trusted):
        return None
    allowed = _FUNCTIONS_OF if isinstance(found, FunctionType) else (*_CLASSES_OF, *_FUNCTIONS_OF)
    if home in _SINGLE or (_within(home, allowed) and not _within(home, _NOT)):
        return None
    return f"stands for {home}, which is not allowed"


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _find(name: str, packages: Sequence[str]) -> Any:
    """What a name stands for: of a module a class, a function, or a function of a class.

    No module outside the packages is imported.
    """
    parts = name.split(".")
    module, depth = None, 0
    while depth < len(parts):
        longer = ".".join(parts[: depth + 1])
        # The packages around an allowed one are imported with it.
        around = any(package.startswith(f"{longer}.") for package in packages)
        if not around and not _within(longer, packages):
            break
        try:
            module, depth = importlib.import_module(longer), depth + 1
        except ModuleNotFoundError as error:
            if error.name != longer or depth == 0:  # a package that is not installed
                raise ConfigError(missing_package(f"_target_={name}", error)) from error
            break
    rest = parts[depth:]
    found = getattr(module, rest[0], None) if rest else None
    if len(rest) == 2 and isinstance(found, type):  # not by way of a module: `build.os.system`
        return getattr(found, rest[1], None)
    return found if len(rest) == 1 else None


def missing_package(what: str, error: ImportError) -> str:
    """The message for something that needs a package that is not installed."""
    package = (error.name or "").partition(".")[0]
    return (
        f"{what} needs the package {package}, which is not installed: pip install "
        f"{package.replace('_', '-')}, or add its folder to PYTHONPATH if it is your own"
    )
