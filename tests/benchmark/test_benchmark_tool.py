"""tools/benchmark.py: every sub-command on the quick start's model, and its errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmark
import pytest
import torch

from streampetr_vit.benchmark.frames import _plain_form
from streampetr_vit.benchmark.session import Session
from streampetr_vit.engine import StreamingTrainer
from streampetr_vit.modeling.ops import attention, kernel_choice

REPOSITORY = Path(__file__).resolve().parents[2]
COMMON = ["--config-file", str(REPOSITORY / "configs" / "quickstart.py"), "--device", "cpu"]
STAGES = ["data", "forward", "losses", "backward", "optimizer"]
QUICK = [*COMMON, "--repeats", "1", "--warmup", "0", "--peak-seconds", "0.02"]


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def measured(tmp_path: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    """Runs a sub-command; its JSON."""
    output = tmp_path / "report.json"
    command, *options = arguments
    returned = benchmark.main([command, *QUICK, "--output", str(output), *options])
    content = json.loads(output.read_text())
    assert returned == status
    assert content["benchmark"] == command
    assert content["settings"]["repeats"] == 1
    return content


def failure(*arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        benchmark.main(list(arguments))
    return str(stop.value.code)


def data_overrides(root: Path, split: str) -> list[str]:
    part = "train" if split == "mini_train" else "test"
    values = {"root": root, "version": "v1.0-mini", "split": split}
    return [f"dataloader.{part}.dataset.{name}={value}" for name, value in values.items()]


def assert_arithmetic(row: dict[str, Any], peak: float, batch: int = 1) -> None:
    seconds = row["p50_ms"] / 1e3
    assert row["tflops"] == pytest.approx(row["tflop"] / seconds)
    assert row["share_of_peak"] == pytest.approx(row["tflop"] / (seconds * peak))
    if "fps" in row:
        assert row["fps"] == pytest.approx(batch / seconds)


def test_latency_beside_the_plain_form(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = measured(tmp_path, "latency", "--compare", "plain", "--batch", "2", "--threads", "1")
    tables = content["tables"]
    assert content["machine"]["threads"] == 1 and content["settings"]["threads"] == 1
    peak = max(row["tflops"] for row in tables["matrix peak"])
    fast, plain = tables["frame"]
    assert (fast["form"], plain["form"]) == ("fast", "plain")
    for row in (fast, plain):
        assert_arithmetic(row, peak, batch=2)
        assert row["peak_memory_gib"] > 0
    stages = tables["stages, fast"]
    assert [row["stage"] for row in stages] == ["preprocess", "backbone", "head", "decode"]
    # One run: the shares are of the sum of its stages, which is all of it but the hooks.
    assert sum(row["share"] for row in stages) == pytest.approx(1)
    assert sum(row["p50_ms"] for row in stages) <= fast["p50_ms"]
    tflop = sum(row.get("tflop", 0) for row in stages)
    assert tflop == pytest.approx(fast["tflop"])
    assert tables["position embedding, once per rig"][0]["p50_ms"] > 0
    difference = tables["fast against plain"][0]
    assert difference["plain_over_fast"] == pytest.approx(plain["p50_ms"] / fast["p50_ms"])
    assert difference["features_rel_diff"] < 1e-4 and difference["scores_rel_diff"] < 1e-4
    printed = capsys.readouterr().out
    assert "fast against plain" in printed and torch.__version__ in printed


def test_plain_form_has_the_same_weights() -> None:
    session = Session(COMMON[1])
    fast = session.build()
    plain = _plain_form(session, fast)
    pairs = zip(fast.named_parameters(), plain.named_parameters(), strict=True)
    for (name, weight), (other, shared) in pairs:
        assert name == other and weight.data_ptr() == shared.data_ptr() and weight.any()
    assert plain.backbone.net.plain and not fast.backbone.net.plain


def test_latency_on_a_data_set_in_bf16(tmp_path: Path, tiny_nuscenes: Path) -> None:
    overrides = data_overrides(tiny_nuscenes, "mini_val")
    content = measured(tmp_path, "latency", "--data", "--precision", "bf16", *overrides)
    frame = content["tables"]["frame"][0]
    assert content["settings"]["data"] and frame["cameras"] == 6 and frame["input"] == "400x160"
    rows = content["tables"]["matrix peak"]
    assert {row["product"] for row in rows} == {"torch.mm", "F.linear"}
    peak = max(row["tflops"] for row in rows)
    assert_arithmetic(frame, peak)
    # The calibration is another one in each frame.
    stages = {row["stage"]: row for row in content["tables"]["stages, fast"]}
    assert stages["position embedding"]["p50_ms"] > 0


def test_latency_takes_given_weights(tmp_path: Path) -> None:
    missing = failure("latency", *QUICK, f"train.init_checkpoint={tmp_path / 'none.pth'}")
    assert "none.pth" in missing


def test_train_under_each_policy(tmp_path: Path) -> None:
    content = measured(tmp_path, "train", "--checkpointing", "off,block", "--peak-tflops", "0.5")
    tables = content["tables"]
    assert tables["matrix peak"][0]["product"] == "given"
    assert [row["checkpointing"] for row in tables["step"]] == ["off", "block"]
    for row in tables["step"]:
        assert_arithmetic(row, 0.5)
        stages = tables[f"stages, {row['checkpointing']}"]
        assert sum(stage["p50_ms"] for stage in stages) == pytest.approx(row["p50_ms"])  # one run
        assert sum(stage["share"] for stage in stages) == pytest.approx(1)
        assert [stage["stage"] for stage in stages] == STAGES


def test_train_on_a_data_set(tmp_path: Path, tiny_nuscenes: Path) -> None:
    overrides = data_overrides(tiny_nuscenes, "mini_train")
    content = measured(tmp_path, "train", "--data", "--checkpointing", "off", *overrides)
    stages = {row["stage"]: row for row in content["tables"]["stages, off"]}
    assert stages["data"]["p50_ms"] > 0


def test_the_step_is_the_trainers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("next_batch", "forward", "backward", "update"):
        method = getattr(StreamingTrainer, name)

        def noted(*args: Any, name: str = name, method: Any = method) -> Any:
            calls.append(name)
            return method(*args)

        monkeypatch.setattr(StreamingTrainer, name, noted)
    measured(tmp_path, "train", "--checkpointing", "off", "--peak-tflops", "1")
    assert calls == ["next_batch", "forward", "backward", "update"] * 2  # a warm-up, and one


def test_a_policy_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = StreamingTrainer.forward

    def out_of_memory(trainer: StreamingTrainer, batch: Any) -> Any:
        losses = forward(trainer, batch)
        if trainer.model.model.backbone.net.use_act_checkpoint is False:
            raise torch.OutOfMemoryError("80 GiB are not enough\nsecond line")
        return losses

    monkeypatch.setattr(StreamingTrainer, "forward", out_of_memory)
    content = measured(tmp_path, "train", "--checkpointing", "off,block", status=1)
    off, block = content["tables"]["step"]
    assert off["error"] == "OutOfMemoryError: 80 GiB are not enough"
    assert "error" not in block and block["p50_ms"] > 0
    assert "stages, block" in content["tables"] and "stages, off" not in content["tables"]


def test_data(tmp_path: Path, tiny_nuscenes: Path) -> None:
    overrides = data_overrides(tiny_nuscenes, "mini_train")
    options = ["--workers", "0,1", "--frames", "3"]
    content = measured(tmp_path, "data", *options, *overrides)
    rows = content["tables"]["loader"]
    assert [row["workers"] for row in rows] == [0, 1]
    for row in rows:
        assert row["images_per_s"] == pytest.approx(6 * row["frames_per_s"])
        assert row["ms_per_frame"] == pytest.approx(1e3 / row["frames_per_s"])
    # This process loads by itself, or waits for one that does.
    assert rows[0]["cpu_ms_per_frame"] > 0
    assert rows[0]["cache_images"]


def test_scale(tmp_path: Path) -> None:
    content = measured(
        tmp_path,
        "scale",
        *("--series", "cameras,resolution,memory,queries,batch"),
        *("--cameras", "1,2", "--resolutions", "400x160,416x192", "--memory", "16,64"),
        *("--queries", "50", "--batches", "2", "--num-cameras", "1"),
        status=1,
    )
    tables = content["tables"]
    one, two = tables["time against cameras"]
    assert (one["real_tokens"], two["real_tokens"]) == (250, 500)
    for row in (one, two, *tables["time against resolution"]):
        assert row["tflops"] == pytest.approx(1e3 * row["tflop"] / row["p50_ms"])
        assert row["us_per_token"] == pytest.approx(1e3 * row["p50_ms"] / row["real_tokens"])
    assert tables["time against resolution"][1]["real_tokens"] == 26 * 12
    short, configured = tables["time against memory"]
    assert "memory_length" in short["error"] and configured["tflop"] == one["tflop"]
    assert tables["time against queries"][0]["tflop"] < one["tflop"]
    assert tables["time against batch"][0]["real_tokens"] == 500


def test_scale_of_the_backbone(tmp_path: Path) -> None:
    options = ["--series", "cameras", "--cameras", "1", "--stage", "backbone"]
    backbone = measured(tmp_path, "scale", *options)["tables"]["time against cameras"][0]
    frame = measured(tmp_path, "scale", *options[:4])["tables"]["time against cameras"][0]
    assert 0 < backbone["tflop"] < frame["tflop"]


def test_attention_kernels_by_window(tmp_path: Path) -> None:
    tables = measured(tmp_path, "attention")["tables"]
    assert "24 windows of 36 tokens, 0 padded keys" in tables and len(tables) == 6
    for rows in tables.values():
        by_kernel = {row["kernel"]: row for row in rows}
        assert set(by_kernel) == {"math", "sdpa", "xformers", "varlen", "flash-attn"}
        for kernel in ("math", "sdpa"):
            assert by_kernel[kernel]["rel_diff"] < 1e-5 and by_kernel[kernel]["p50_ms"] > 0
        why = kernel_choice.why_not("xformers", torch.device("cpu"), torch.float32)
        assert by_kernel["xformers"]["not_run"] == why


def test_a_kernel_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> torch.Tensor:
        raise RuntimeError("no such library")

    monkeypatch.setitem(attention.KERNELS, "sdpa", failing)
    content = measured(tmp_path, "attention", "--shapes", "2x8+0", status=1)
    rows = content["tables"]["2 windows of 8 tokens, 0 padded keys"]
    errors = {row["kernel"]: row["error"] for row in rows if "error" in row}
    assert errors == {"sdpa": "RuntimeError: no such library"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latency", *QUICK, "--cuda-graph"], "needs the detector on a GPU"),
        (["latency", *QUICK, "--output", "no/such/folder.json"], "that folder does not exist"),
        (["latency", *QUICK, "model.colour=1"], "no key 'colour'"),
    ],
)
def test_wrong_settings(arguments: list[str], message: str) -> None:
    assert message in failure(*arguments)


@pytest.mark.parametrize(
    ("command", "option", "value", "allowed"),
    [
        ("train", "--batch", "0", "1 or more"),
        ("scale", "--num-cameras", "-1", "1 or more"),
        ("data", "--frames", "0", "1 or more"),
        ("latency", "--threads", "0", "1 or more"),
        ("latency", "--repeats", "0", "1 or more"),
        ("latency", "--warmup", "-1", "0 or more"),
        ("latency", "--peak-tflops", "0", "above 0"),
        ("latency", "--peak-seconds", "0", "above 0"),
        ("scale", "--series", "colour", "cameras or resolution or memory or queries or batch"),
        ("scale", "--resolutions", "40", "WIDTHxHEIGHT"),
        ("scale", "--batches", "1,0", "a number above 0"),
        ("train", "--checkpointing", "off,all", "off or block or selective"),
        ("data", "--workers", "two", "a number"),
        ("attention", "--shapes", "4x", "WINDOWSxTOKENS+PADDED"),
        ("attention", "--shapes", "0x4+1", "one window and token at least"),
    ],
)
def test_impossible_values(
    command: str, option: str, value: str, allowed: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark.main([command, *COMMON, option, value])
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and f"argument {option}:" in printed and allowed in printed


def test_a_result_that_cannot_be_written(tmp_path: Path) -> None:
    assert "--output" in failure(
        "attention", *QUICK, "--shapes", "2x8+0", "--output", str(tmp_path)
    )


@pytest.mark.parametrize("command", [[], *([name] for name in benchmark.COMMANDS)])
def test_help(command: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark.main([*command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "--config-file" in printed if command else "examples:" in printed
