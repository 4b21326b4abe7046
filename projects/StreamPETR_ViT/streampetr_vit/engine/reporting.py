"""The report of a run, written from its output folder and its configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from streampetr_vit.report.from_run import report_from_run
from streampetr_vit.report.page import write_report

MEMORY_ON, MEMORY_OFF = "memory on", "memory off at test"


def write_run_report(cfg: DictConfig, other_runs: Mapping[str, Path]) -> Path:
    """Writes OUTPUT/report.html.

    Args:
        cfg: the whole configuration.
        other_runs: name -> folder of further evaluations, to stand beside the main one.

    Returns:
        The path of the report.
    """
    output_dir = Path(cfg.train.output_dir)
    report = report_from_run(
        output_dir,
        _plain(cfg.dataloader.test.dataset),
        cfg.report.title,
        spec=instantiate(cfg.dataset_spec),
        notes=[*cfg.report.notes, *_notes(cfg)],
        facts=_training_facts(output_dir / "metrics.json"),
        main_run=MEMORY_ON if cfg.model.get("memory_at_test", True) else MEMORY_OFF,
        other_runs=other_runs,
        range_m=cfg.report.range_m,
    )
    return write_report(output_dir, report)


def _plain(value: Any) -> Any:
    """A configuration's own containers as dicts and lists."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _notes(cfg: DictConfig) -> list[str]:
    """What in the configuration is not the published model, so that no report hides it."""
    sigma = cfg.model.head.get("prior_sigma_cells")
    if not sigma:
        return []
    return [
        f"A geometric prior is on (model.head.prior_sigma_cells={sigma:g}): every query looks "
        "first where its reference point projects. It is not part of the published model."
    ]


def _training_facts(metrics_json: Path) -> dict[str, str]:
    """How long the training was, from its log; nothing for a run that was only evaluated."""
    if not metrics_json.is_file():
        return {}
    rows = [json.loads(line) for line in metrics_json.read_text().splitlines() if line]
    steps = [row for row in rows if "total_loss" in row]
    if not steps:
        return {}
    last = steps[-1]
    facts = {"trained for": f"{int(last['iteration']) + 1} iterations"}
    if last.get("skipped_steps"):
        facts["skipped steps"] = f"{int(last['skipped_steps'])} (not finite)"
    return facts
