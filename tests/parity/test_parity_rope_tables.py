"""Rotary tables and rotation against EVA-02's vision rotary embedding."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest
import torch

from streampetr_vit.modeling.backbone.rope import rotary_tables, rotate_pairs

ATOL = 2e-6


@pytest.mark.parametrize("path", golden.files_of("rope"), ids=lambda path: path.stem)
def test_rotary_tables_agree_with_the_reference(path: Path) -> None:
    case = golden.load(path)
    assert case["config"]["freqs_for"] == "lang"
    for expected in case["outputs"]["tables"]:
        name = f"head_dim={expected['head_dim']} grid={expected['ft_seq_len']}"
        cos, sin = rotary_tables(
            expected["head_dim"],
            expected["ft_seq_len"],
            expected["pt_seq_len"],
            base=case["config"]["theta"],
        )
        # The reference stores each angle twice, once per channel of a pair.
        full_cos, full_sin = cos.repeat_interleave(2, dim=-1), sin.repeat_interleave(2, dim=-1)
        assert list(full_cos.shape) == expected["full_shape"]
        rows = expected["rows"]
        golden.assert_close(full_cos[rows], expected["freqs_cos"], f"{name} cos", ATOL, rtol=0)
        golden.assert_close(full_sin[rows], expected["freqs_sin"], f"{name} sin", ATOL, rtol=0)
        for table, total in ((full_cos, expected["sum_cos"]), (full_sin, expected["sum_sin"])):
            assert float(table.double().sum()) == pytest.approx(total, abs=1e-7 * table.numel())
        if "x" in expected:
            rotated = rotate_pairs(expected["x"], cos, sin)
            golden.assert_close(rotated, expected["x_rotated"], f"{name} rotated", ATOL, rtol=0)
            assert rotated.dtype == torch.float32
