"""benchmarks/gpu_checks.py without a GPU: parts that pass, fail and take too long."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import benchmark
import gpu_checks
import make_synthetic_nuscenes
import pytest
import torch

from streampetr_vit.engine import load_config
from streampetr_vit.engine.config import call
from streampetr_vit.structures import Sample

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_part_is_a_command_that_exists() -> None:
    found = gpu_checks.parts()
    assert len({part.name for part in found}) == len(found)
    for part in found:
        tool = part.command[0]
        assert tool == "-m" or (REPOSITORY / tool).is_file()
        if tool == "tools/benchmark.py":
            args = benchmark.build_parser().parse_args(part.command[1:])
            assert args.device == "cuda" and Path(args.output).stem == part.name
            load_config(str(REPOSITORY / args.config_file), args.overrides)  # keys that exist
        elif tool == "tools/make_synthetic_nuscenes.py":
            args = make_synthetic_nuscenes.parse_arguments(list(part.command[1:]))
            config = make_synthetic_nuscenes.config_from(args)
            assert args.out == gpu_checks.DATA_SET and config.version == "v1.0-mini"


def test_a_recipe_reads_the_data_set_of_the_parts(tiny_nuscenes: Path) -> None:
    place = str(gpu_checks.DATA_SET)
    overrides = [text.replace(place, str(tiny_nuscenes)) for text in gpu_checks.DATA]
    cfg = load_config(str(REPOSITORY / gpu_checks.SMALL), overrides)
    assert cfg.dataloader.train.num_workers > 0
    loader = call(cfg.dataloader.train, num_workers=0, lanes_per_rank=1, rank=0, world_size=1)
    (sample,) = next(iter(loader))
    assert isinstance(sample, Sample)


def script(name: str, code: str, limit_s: float = 60):
    return gpu_checks.Part(name, limit_s, ("-c", code))


def test_parts_fail_alone(tmp_path: Path) -> None:
    passed = gpu_checks.run_part(script("fine", "print('3 passed')"), 60, tmp_path)
    assert passed == [{"passed": "3 passed"}]
    broken = script("broken", "raise SystemExit('no driver')")
    assert gpu_checks.run_part(broken, 60, tmp_path) == [{"error": "exit status 1: no driver"}]
    slow = script("slow", "import time; time.sleep(60)", limit_s=1)
    assert "ended after its 1 s" in gpu_checks.run_part(slow, 60, tmp_path)[0]["error"]
    assert gpu_checks.run_part(slow, 0.5, tmp_path) == [{"not run": "no time left"}]


def test_a_part_learns_how_long_it_may_train(tmp_path: Path) -> None:
    part = gpu_checks.Part("quickstart", 600, ("-c", "print('trained for {seconds} s')"))
    assert gpu_checks.run_part(part, 300, tmp_path) == [{"passed": "trained for 180 s"}]
    assert gpu_checks.run_part(part, 149, tmp_path) == [{"not run": "no time left"}]


def writes(result: Path, tables: dict, status: int = 0) -> str:
    text = json.dumps({"tables": tables})
    return f"open({str(result)!r}, 'w').write({text!r}); raise SystemExit({status})"


def test_rows_of_a_result(tmp_path: Path) -> None:
    tables = {"step": [{"checkpointing": "off", "p50_ms": 3.0, "tflop": 9.0}]}
    code = writes(tmp_path / "train.json", tables)
    rows = gpu_checks.run_part(script("train", code), 60, tmp_path)
    assert rows == [{"table": "step", "checkpointing": "off", "p50_ms": 3.0}]
    # One that failed without a row that says so, and one of an earlier run.
    code = writes(tmp_path / "train.json", tables, status=1)
    rows = gpu_checks.run_part(script("train", code), 60, tmp_path)
    assert "exit status 1" in rows[1]["error"]
    rows = gpu_checks.run_part(script("train", "raise SystemExit(3)"), 60, tmp_path)
    assert rows == [{"error": "exit status 3: no output"}]


def test_the_table_grows_and_ends_with_a_line_of_json(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tables = {"frame": [{"form": "fast", "p50_ms": 1.25}]}
    chosen = [
        script("broken", "raise SystemExit('no driver')"),
        script("frame", writes(tmp_path / "frame.json", tables)),
    ]
    table = gpu_checks.check(chosen, 60, tmp_path)
    first, second, last = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("broken ") and "no driver" in first
    assert second.startswith("frame ") and "p50_ms 1.25" in second
    assert json.loads(last)["rows"] == table and json.loads(last)["machine"]["torch"]


def test_a_part_is_a_run_of_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_checks, "OUTPUT", tmp_path)
    part = gpu_checks.benchmark("attention", 120, "attention", "configs/quickstart.py")
    on_cpu = tuple({"cuda": "cpu", "bf16": "float32"}.get(word, word) for word in part.command)
    rows = gpu_checks.run_part(gpu_checks.Part(part.name, 120, on_cpu), 120, tmp_path)
    sdpa = [row for row in rows if row["kernel"] == "sdpa"]
    assert len(sdpa) == len({row["table"] for row in rows}) > 1
    assert all(row["p50_ms"] > 0 for row in sdpa)


def test_without_a_gpu_nothing_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_checks"])
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu_checks.main()
