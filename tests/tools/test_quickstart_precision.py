"""The quick start on GPUs with and without bfloat16."""

from __future__ import annotations

import pytest
import quickstart
import torch

from streampetr_vit.engine import load_config


@pytest.mark.parametrize(
    ("has_bf16", "options", "expected"),
    [
        (False, [], "fp16"),
        (True, [], "bf16"),
        (False, ["train.precision=float32"], "float32"),
        (False, ["train.precision=bf16"], "bf16"),  # asked for: the trainer says what is wrong
        (False, ["train.device=cpu"], "bf16"),
    ],
)
def test_precision_follows_the_gpu(
    has_bf16: bool, options: list[str], expected: str, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    # torch says True for emulation too, unless it is asked not to.
    supported = lambda including_emulation=True: has_bf16 or including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    cfg = load_config("configs/quickstart_gpu.py", options)
    quickstart.fit_precision(cfg, options)
    assert cfg.train.precision == expected
    said = "Tesla T4 has no bfloat16: train.precision=fp16" in capsys.readouterr().out
    assert said == (expected == "fp16")
