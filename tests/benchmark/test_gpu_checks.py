"""benchmarks/gpu_checks.py without a GPU: parts that pass, fail and take too long."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmark
import pytest
import torch

from streampetr_vit.benchmark.peak import MatrixPeak
from streampetr_vit.benchmark.training import POLICIES
from streampetr_vit.engine import load_config
from synthetic_nuscenes import PRESETS

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLING = str(REPOSITORY / "configs" / "quickstart_repdetr3d.py")
TINY = str(REPOSITORY / "configs" / "quickstart.py")


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "gpu_checks", REPOSITORY / "benchmarks" / "gpu_checks.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_checks"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def script(checks: ModuleType, name: str, code: str, limit_s: float = 60, rows: Any = None) -> Any:
    return checks.Part(name, [sys.executable, "-c", code], limit_s, rows)


def test_every_part_is_a_command_that_the_tool_understands(
    checks: ModuleType, tmp_path: Path
) -> None:
    found = checks.parts(checks.Plan(output=tmp_path), 500.0, ["dataloader.train.num_workers=2"])
    assert len({part.name for part in found}) == len(found)
    for part in found:
        assert part.command[1] == "tools/benchmark.py"
        args = benchmark.build_parser().parse_args(part.command[2:])
        assert (REPOSITORY / args.config_file).exists()
        assert args.precision == "bf16" and args.peak_tflops == 500
    commands = [part.command[2] for part in found]
    assert set(commands) == {"latency", "train", "attention", "data"}
    assert sum("--cuda-graph" in part.command for part in found) == 3
    assert any({"--cuda-graph", "--compile"} <= set(part.command) for part in found)
    without_pictures = checks.parts(checks.Plan(output=tmp_path), 500.0, [])
    assert len(without_pictures) == len(found) - 2


def test_a_row_that_failed_without_saying_so_is_an_error(
    checks: ModuleType, tmp_path: Path
) -> None:
    result = tmp_path / "quiet.json"
    code = f"open({str(result)!r}, 'w').write('{{\"tables\": {{}}}}'); raise SystemExit(1)"
    part = script(checks, "quiet", code, rows=lambda tables: [{"fine": 1}])
    rows = checks.run_part(part, 60, tmp_path)
    assert rows[0] == {"fine": 1} and "exit status 1" in rows[1]["error"]


def test_parts_fail_alone(checks: ModuleType, tmp_path: Path) -> None:
    passed = checks.run_part(script(checks, "fine", "print('3 passed')"), 60, tmp_path)
    assert passed[0]["passed"] == "3 passed"
    broken = script(checks, "broken", "raise SystemExit('no driver')")
    assert checks.run_part(broken, 60, tmp_path) == [{"error": "exit status 1: no driver"}]
    slow = script(checks, "slow", "import time; time.sleep(60)", limit_s=1)
    assert "ended after its 1 s" in checks.run_part(slow, 60, tmp_path)[0]["error"]
    assert checks.run_part(slow, 0.5, tmp_path) == [{"error": "no time left"}]
    extra = replace(slow, optional=True)
    assert checks.run_part(extra, 0.5, tmp_path) == [{"not run": "no time left"}]


def test_a_part_is_a_process(checks: ModuleType, tmp_path: Path) -> None:
    plan = checks.Plan(TINY, TINY, SAMPLING, "cpu", "float32", 1, tmp_path)
    part = next(part for part in checks.parts(plan, 0.5, []) if part.name == "attention")
    rows = checks.run_part(part, 60, tmp_path)
    assert len(rows) == 6 and all(row["sdpa"] > 0 for row in rows)


def test_a_result_of_an_earlier_run_does_not_count(checks: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "frame.json").write_text('{"tables": {"loader": []}}')
    part = script(checks, "frame", "raise SystemExit(3)", rows=checks.loading_rows)
    assert "exit status 3" in checks.run_part(part, 60, tmp_path)[0]["error"]
    code = f"open({str(tmp_path / 'frame.json')!r}, 'w').write('half')"
    part = script(checks, "frame", code, rows=checks.loading_rows)
    assert "JSONDecodeError" in checks.run_part(part, 60, tmp_path)[0]["error"]


def test_the_whole_run_on_the_quick_starts_model(
    checks: ModuleType,
    tiny_nuscenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Its parts run in this process, where one takes a second instead of five."""

    def run_here(part: Any, left_s: float, output: Path) -> list[dict[str, Any]]:
        assert 0 < left_s <= 60
        if part.rows is None:
            return [{"passed": "none"}]
        if "--compile" in part.command:
            return [{"error": "no compiler"}]
        command, *options = part.command[2:]
        assert benchmark.main([command, "--warmup", "0", *options]) == 0
        result = output / f"{checks._file_name(part.name)}.json"
        return part.rows(json.loads(result.read_text())["tables"])

    plan = checks.Plan(TINY, TINY, SAMPLING, "cpu", "float32", 1, tmp_path, workers=0, graphs=False)
    data = checks.data_overrides(plan, tiny_nuscenes, PRESETS["tiny"])
    monkeypatch.setattr(checks, "run_part", run_here)
    monkeypatch.setattr(checks, "small_data_set", lambda plan: data)
    monkeypatch.setattr(checks, "measure_peak", lambda *_: MatrixPeak(0.1, 0.2, (1, 1, 1)))
    table = checks.check(plan, 60, checks.Part("tests marked gpu", [], 1))
    rows = {name: [r for r in table if r["part"] == name] for name in {r["part"] for r in table}}
    assert rows["tests marked gpu"][0]["passed"] == "none"
    assert rows["matrix peak, float32"][0]["TFLOP/s"] == 0.2
    fast, plain, *_, difference = rows["large frame"]
    assert plain["p50_ms"] / fast["p50_ms"] == pytest.approx(difference["plain_over_fast"])
    assert rows["small frame, compiled"][0]["error"] == "no compiler"
    assert [r["checkpointing"] for r in rows["training, batch 2"]] == list(POLICIES)
    assert 0 < rows["training, batch 1"][0]["losses"] < 1
    assert rows["training, pictures"][0]["data wait"] > 0
    assert rows["data"][0]["images_per_s"] > 0
    assert len(rows["attention"]) == 6
    assert rows["RepDETR3D, gather"][0]["fps"] > 0
    assert "quick start" not in rows
    checks.print_table(table, torch.device("cpu"))
    printed = capsys.readouterr().out
    assert "plain_over_fast" in printed and "error no compiler" in printed


def test_what_cannot_be_prepared_is_a_row(
    checks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: no such kernel")

    monkeypatch.setattr(checks, "measure_peak", fail)
    plan = checks.Plan(TINY, TINY, SAMPLING, "cpu", "float32", 1, tmp_path)
    tests, preparation = checks.check(plan, 60, script(checks, "tests", "print('1 passed')"))
    assert tests["passed"] == "1 passed"
    assert preparation["error"] == "RuntimeError: CUDA error: no such kernel"


def test_small_data_set(
    checks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(checks, "generate", lambda config, root: made.append(config) or root)
    overrides = checks.small_data_set(checks.Plan(output=tmp_path))
    cfg = load_config(str(REPOSITORY / "configs/streampetr_eva02_l_800x320_24ep.py"), overrides)
    dataset = cfg.dataloader.train.dataset
    assert dataset == {"root": str(tmp_path / "data_set"), "version": "v1.0-mini"} | {
        "split": "mini_train"
    }
    assert made[0].version == dataset.version and cfg.dataloader.train.num_workers == 8


def test_without_a_gpu_nothing_is_checked(
    checks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_checks"])
    with pytest.raises(SystemExit, match="no CUDA device"):
        checks.main()
