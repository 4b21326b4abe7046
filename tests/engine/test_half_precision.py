"""Half precisions that would spoil a training are refused before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_detector import make_detector, make_sample

from streampetr_vit.engine import load_config, train
from streampetr_vit.engine.half_precision import check_half_precision
from streampetr_vit.errors import InputError
from streampetr_vit.inference import Stream
from streampetr_vit.modeling.decoder.decoder import TemporalDecoder

ROOT = Path(__file__).resolve().parents[2]


def decoder(attention: str) -> TemporalDecoder:
    return TemporalDecoder(8, 2, 8, 1, cross_attention_precision=attention)


@pytest.mark.parametrize("trained", ["bf16", "float32"])
def test_fp16_attention_needs_loss_scaling(trained: str) -> None:
    with pytest.raises(InputError, match="cross_attention_precision=fp16 needs train.precision=fp"):
        check_half_precision(decoder("fp16"), trained)
    check_half_precision(decoder("fp16"), "fp16")
    for other in ("float32", "bf16"):
        check_half_precision(decoder(other), trained)


def test_bf16_attention_needs_a_device_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streampetr_vit.engine.half_precision.half_precision_of", lambda _: "fp16")
    with pytest.raises(InputError, match="cross_attention_precision=bf16: this GPU has no bfloat"):
        check_half_precision(decoder("bf16"), "fp16")


def test_training_asks_before_it_reads_data() -> None:
    setting = "model.head.decoder.cross_attention_precision=fp16"
    cfg = load_config(str(ROOT / "configs/quickstart.py"), [setting, "train.precision=bf16"])
    cfg.dataloader.train.dataset.root = "there/is/no/such/folder"
    cfg.train.device = "cpu"
    with pytest.raises(InputError, match="set train.precision=fp16, or model.head.decoder.cross"):
        train(cfg)


def test_inference_takes_fp16_attention_with_any_precision() -> None:
    detector = make_detector().eval()
    for layer in detector.head.decoder.layers:
        layer.cross_attention.dtype = torch.float16
    assert len(Stream(detector)([make_sample(0)])) == 1
