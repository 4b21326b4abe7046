"""What a run reads, looked for before its model is built, which may take minutes."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from streampetr_vit.checkpoint.given_file import NAMED_BY_SETTING, check_given_file
from streampetr_vit.checkpoint.manifest import MANIFEST
from streampetr_vit.configuration.arguments import target_of
from streampetr_vit.data.nuscenes.catalog import check_folder_of
from streampetr_vit.engine.agreement import on_all_ranks, on_rank_0
from streampetr_vit.engine.config import check_settings


def check_inputs(cfg: DictConfig, loaders: tuple[str, ...], resume: bool) -> None:
    """Looks whether the data sets and the start weights are there; the same on all ranks.

    Nothing is read but the first bytes of the weights.

    Args:
        cfg: the whole configuration.
        loaders: of its dataloader section; "test" is passed over where nothing is evaluated.
        resume: the weights of an earlier run are taken, if there are such.

    Raises:
        UserError: what is missing, as where it would be read.
    """
    check_settings(cfg)  # `load_config` could not see what a caller has changed since
    takes_weights = not (resume and on_rank_0(lambda: has_checkpoint(cfg.train.output_dir)))

    def look() -> None:
        for name in loaders:
            if name != "test" or cfg.dataloader.get("evaluator") is not None:
                _check_dataset(cfg.dataloader[name])
        # An address on the network is fetched where it is read.
        if takes_weights and (path := cfg.train.init_checkpoint) and "://" not in path:
            check_given_file(path, NAMED_BY_SETTING)

    on_all_ranks(look)


def has_checkpoint(folder: str) -> bool:
    """Whether a training has saved a checkpoint in its output folder."""
    return any(Path(folder, name).is_file() for name in ("last_checkpoint", MANIFEST))


def _check_dataset(loader: DictConfig) -> None:
    # What others' loaders call a data set is not known.
    module = getattr(target_of(loader), "__module__", "")
    if module.startswith("streampetr_vit.") and "dataset" in loader:
        check_folder_of(loader.dataset)
