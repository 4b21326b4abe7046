"""The whole job through the command-line tool, on the toy task."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import lazyconfig_train_net
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import default_argument_parser
from detectron2.engine.hooks import EvalHook
from toy_task import ToyDataset, ToyDetector

from streampetr_vit.engine import load_config, train
from streampetr_vit.engine.trainer import StreamingTrainer

CONFIG = str(Path(__file__).with_name("toy_config.py"))


def run_tool(output: Path, *arguments: str) -> None:
    words = ["--config-file", CONFIG, *arguments, f"train.output_dir={output}"]
    lazyconfig_train_net.main(default_argument_parser().parse_args(words))


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "model_final.pth", weights_only=True)["model"]


def metrics(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


def test_a_run_leaves_what_users_of_detectron2_expect(tmp_path: Path, caplog) -> None:
    run_tool(tmp_path, "schedule.epochs=3", "train.checkpointer.period=12")
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "model_final.pth", "last_checkpoint"} <= names
    assert "config.yaml.pkl" not in names
    assert {"model_0000035.pth", "model_0000023.pth", "checkpoints.sha256"} <= names
    assert "model_0000011.pth" not in names  # max_to_keep
    assert "model_0000047.pth" not in names  # the last step has the final one
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"

    log = (tmp_path / "log.txt").read_text()
    assert "batch          4 frames = 4 lanes x 1 processes" in log
    assert "epochs         3 of 16 iterations" in log
    assert "learning rates backbone 0.002, head 0.02" in log
    assert "lr scale       x1: 4 frames per step, optimizer.lr is for 4" in log
    assert "kernels        attention none; fused AdamW; torch " in log
    assert "recomputed     nothing (activation checkpointing)" in log

    rows = metrics(tmp_path)
    training = [row for row in rows if "total_loss" in row]
    assert [row["iteration"] for row in training] == list(range(3, 48, 4))
    expected = {"lr", "grad_norm", "skipped_steps", "data_time", "loss_square", "loss_abs"}
    assert expected <= set(training[-1])
    assert training[-1]["total_loss"] < training[0]["total_loss"]
    assert "toy/error" in rows[-1]


def test_the_saved_configuration_builds_the_same_model(tmp_path: Path) -> None:
    run_tool(tmp_path, "model.width=5", "train.max_iter=2")
    model = instantiate(LazyConfig.load(str(tmp_path / "config.yaml")).model)
    assert isinstance(model, ToyDetector)
    DetectionCheckpointer(model).load(str(tmp_path / "model_final.pth"))
    for name, value in final_weights(tmp_path).items():
        assert torch.equal(model.state_dict()[name], value)


def test_resume_equals_an_uninterrupted_run(tmp_path: Path, monkeypatch) -> None:
    run_tool(tmp_path / "whole", "train.checkpointer.period=10")

    interrupted = tmp_path / "interrupted"
    losses = ToyDetector.losses
    calls = []

    def fails_at_step_23(model: ToyDetector, samples: list, memory: object) -> object:
        calls.append(len(samples))
        if len(calls) == 24:
            raise KeyboardInterrupt
        return losses(model, samples, memory)

    with monkeypatch.context() as patch:
        patch.setattr(ToyDetector, "losses", fails_at_step_23)
        with pytest.raises(SystemExit, match="130"):
            run_tool(interrupted, "train.checkpointer.period=10")
    assert (interrupted / "last_checkpoint").read_text() == "model_0000019.pth"
    run_tool(interrupted, "--resume", "train.checkpointer.period=10")

    # The recipe names base rates, not the decayed ones of the checkpoint.
    assert (interrupted / "log.txt").read_text().count("learning rates backbone 0.002, ") == 2
    whole, resumed = final_weights(tmp_path / "whole"), final_weights(interrupted)
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name
    rates = {row["iteration"]: row["lr"] for row in metrics(interrupted) if "lr" in row}
    for row in metrics(tmp_path / "whole"):
        if "lr" in row:
            assert rates[row["iteration"]] == pytest.approx(row["lr"])


def test_resume_without_a_checkpoint_starts_anew_and_says_so(tmp_path: Path) -> None:
    run_tool(tmp_path, "--resume", "train.max_iter=2")
    assert "nothing to resume in" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "model_final.pth").exists()


def test_resume_with_other_parameter_groups_is_an_error(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=2")
    with pytest.raises(SystemExit, match="cannot resume.*other parameter groups"):
        run_tool(tmp_path, "--resume", "optimizer.params.backbone_lr_factor=1")


def test_a_second_run_keeps_its_curves_apart(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=4")
    run_tool(tmp_path, "train.max_iter=4")
    assert [row["iteration"] for row in metrics(tmp_path) if "lr" in row] == [3]
    earlier = tmp_path / "earlier_1"
    assert [row["iteration"] for row in metrics(earlier) if "lr" in row] == [3]
    run_tool(tmp_path, "train.max_iter=5")
    assert metrics(earlier)[0]["iteration"] == 3 and (tmp_path / "earlier_2").is_dir()
    # It is an output folder like any other.
    run_tool(earlier, "--resume", "train.max_iter=6")
    assert "training from iteration 4 to 6" in (earlier / "log.txt").read_text()


def test_resume_never_takes_the_checkpoint_of_an_earlier_run(tmp_path: Path, monkeypatch) -> None:
    run_tool(tmp_path, "train.max_iter=4")

    def fail(trainer: StreamingTrainer) -> None:
        raise RuntimeError("interrupted before the first checkpoint")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="interrupted"):
        patch.setattr(StreamingTrainer, "run_step", fail)
        run_tool(tmp_path, "train.max_iter=4")
    with pytest.raises(
        SystemExit, match=r"no last_checkpoint; earlier runs.*--resume train.output_dir=.*earlier_1"
    ):
        run_tool(tmp_path, "--resume", "train.max_iter=2")
    run_tool(tmp_path, "train.max_iter=2")
    assert "training from iteration 0 to 2" in (tmp_path / "log.txt").read_text()


def test_evaluation_alone_gives_the_metrics_of_the_end_of_training(tmp_path: Path, caplog) -> None:
    run_tool(tmp_path / "run")
    trained = metrics(tmp_path / "run")[-1]["toy/error"]
    with caplog.at_level(logging.INFO):
        logging.getLogger("detectron2").propagate = True
        weights = f"train.init_checkpoint={tmp_path / 'run' / 'model_final.pth'}"
        cfg = load_config(CONFIG, [weights, f"train.output_dir={tmp_path / 'eval'}"])
        again = lazyconfig_train_net.evaluate_only(cfg)
    assert again["toy"]["error"] == pytest.approx(trained, rel=1e-6)
    cfg = load_config(CONFIG, [f"train.output_dir={tmp_path / 'run'}"])
    last = lazyconfig_train_net.evaluate_only(cfg, resume=True)
    assert last == again
    assert cfg.dataloader.evaluator.output_dir == f"{tmp_path / 'run'}/inference"


def test_evaluation_in_half_precision_leaves_the_data_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tool(tmp_path / "run")
    seen: dict[str, set[bool]] = {"data": set(), "model": set()}

    def note(owner: type, method: str, place: str) -> None:
        original = getattr(owner, method)

        def noting(self, *arguments):
            seen[place].add(torch.is_autocast_enabled("cpu"))
            return original(self, *arguments)

        monkeypatch.setattr(owner, method, noting)

    note(ToyDataset, "__getitem__", "data")
    note(ToyDetector, "forward", "model")
    overrides = ["train.eval_precision=bf16", f"train.output_dir={tmp_path / 'run'}"]
    lazyconfig_train_net.evaluate_only(load_config(CONFIG, overrides), resume=True)
    assert seen == {"data": {False}, "model": {True}}


def test_evaluation_without_a_head_or_without_weights_is_an_error(tmp_path: Path) -> None:
    backbone = {k: v for k, v in ToyDetector().state_dict().items() if k.startswith("backbone")}
    torch.save({"model": backbone}, tmp_path / "backbone.pth")
    with pytest.raises(SystemExit, match=r"not a whole detector.*head.1 \(2\)"):
        run_tool(tmp_path, "--eval-only", f"train.init_checkpoint={tmp_path / 'backbone.pth'}")
    with pytest.raises(SystemExit, match="--eval-only has no weights"):
        run_tool(tmp_path, "--eval-only")


def test_a_backbone_file_starts_a_training(tmp_path: Path) -> None:
    start = {k: v for k, v in ToyDetector().state_dict().items() if k.startswith("backbone")}
    torch.save({"model": start}, tmp_path / "backbone.pth")
    cfg = load_config(
        CONFIG,
        [
            f"train.init_checkpoint={tmp_path / 'backbone.pth'}",
            f"train.output_dir={tmp_path / 'run'}",
            "optimizer.lr=0",
            "train.max_iter=1",
        ],
    )
    metrics_at_end = train(cfg)
    assert set(metrics_at_end) == {"toy"}
    assert torch.equal(final_weights(tmp_path / "run")["backbone.weight"], start["backbone.weight"])


def test_auto_scale_reaches_the_optimiser_and_the_log(tmp_path: Path) -> None:
    words = ["dataloader.train.lanes_per_rank=2", "train.max_iter=1", "schedule.warmup_iters=0"]
    run_tool(tmp_path / "on", *words, "train.log_period=1")
    run_tool(tmp_path / "off", *words, "train.log_period=1", "train.auto_scale=False")
    rates = [metrics(tmp_path / name)[0]["lr"] for name in ("on", "off")]
    assert rates == pytest.approx([0.01, 0.02])
    log = (tmp_path / "on" / "log.txt").read_text()
    assert "learning rates backbone 0.001, head 0.01" in log
    assert "lr scale       x0.5: 2 frames per step, optimizer.lr is for 4" in log
    assert "x1, train.auto_scale is off" in (tmp_path / "off" / "log.txt").read_text()


def test_a_configuration_from_before_auto_scale_trains_as_it_did(tmp_path: Path) -> None:
    cfg = load_config(CONFIG, ["train.max_iter=1", f"train.output_dir={tmp_path}"])
    del cfg.train["auto_scale"], cfg.schedule["lr_batch"]
    cfg.dataloader.train.lanes_per_rank = 1
    assert train(cfg)
    assert metrics(tmp_path)[-1]["iteration"] == 1


def test_evaluation_on_the_way(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.eval_period=16", "train.log_period=1")
    rows = [row["iteration"] for row in metrics(tmp_path) if "toy/error" in row]
    assert rows == [15, 32]


def test_an_evaluation_on_the_way_leaves_the_training_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are those of a run without it, and the memory is the same object after it."""
    memories: list[tuple[object, object]] = []
    step = EvalHook.after_step

    def watched(hook: EvalHook) -> None:
        before = hook.trainer.memory
        step(hook)
        memories.append((before, hook.trainer.memory))

    monkeypatch.setattr(EvalHook, "after_step", watched)
    words = ("train.max_iter=6", "model.remembers=True")
    run_tool(tmp_path / "plain", *words)
    run_tool(tmp_path / "evaluated", *words, "train.eval_period=2")
    assert len(memories) == 2 * 6 and all(a is b and a is not None for a, b in memories)
    plain, evaluated = final_weights(tmp_path / "plain"), final_weights(tmp_path / "evaluated")
    assert all(torch.equal(plain[name], evaluated[name]) for name in plain)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-file", "no/such.py"], "configuration 'no/such.py' does not exist"),
        (["--config-file", CONFIG, "train.max_itr=3"], "did you mean train.max_iter"),
        (
            ["--config-file", CONFIG, "--eval-only", "train.init_checkpoint=gone.pth"],
            "checkpoint 'gone.pth' does not exist",
        ),
    ],
)
def test_the_tool_ends_with_one_clear_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tools/lazyconfig_train_net.py", *words])
    with pytest.raises(SystemExit, match=f"^lazyconfig_train_net.py: error: .*{message}"):
        lazyconfig_train_net.invoke_main()


def test_help_has_examples(capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["lazyconfig_train_net.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        lazyconfig_train_net.invoke_main()
    text = capsys.readouterr().out
    assert "--config-file configs/quickstart.py --resume" in text and "torchrun" in text
