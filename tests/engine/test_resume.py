"""What --resume restores, what the configuration decides, and what cannot be resumed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lazyconfig_train_net
import pytest
import torch
from detectron2.config import LazyCall
from detectron2.engine import default_argument_parser
from toy_task import ToyDetector

from streampetr_vit.engine import load_config, train

CONFIG = str(Path(__file__).with_name("toy_config.py"))


def run_tool(output: Path, *arguments: str) -> None:
    words = ["--config-file", CONFIG, *arguments, f"train.output_dir={output}"]
    lazyconfig_train_net.main(default_argument_parser().parse_args(words))


def final(output: Path) -> dict[str, Any]:
    return torch.load(output / "model_final.pth", weights_only=True)


def rewrite(output: Path, content: dict[str, Any]) -> None:
    """Puts another final checkpoint into a folder, on purpose: without its checksum."""
    torch.save(content, output / "model_final.pth")
    (output / "checkpoints.sha256").unlink()


def test_settings_of_the_optimiser_are_those_of_the_configuration(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=4")
    before = final(tmp_path)["trainer"]["optimizer"]
    words = ["optimizer.weight_decay=0.25", "optimizer.betas=[0.5,0.75]", "optimizer.lr=0.002"]
    run_tool(tmp_path, "--resume", "train.max_iter=6", "optimizer.fused=False", *words)
    after = final(tmp_path)["trainer"]["optimizer"]
    for old, new in zip(before["param_groups"], after["param_groups"], strict=True):
        assert old["fused"] and not new["fused"]
        assert (old["weight_decay"], new["weight_decay"]) == (0.01, 0.25)
        assert tuple(new["betas"]) == (0.5, 0.75)
        assert new["lr"] < 0.002
    assert all(float(state["step"]) == 6 for state in after["state"].values())
    log = (tmp_path / "log.txt").read_text()
    assert "0.25 on 0.00 M parameters" in log and "; AdamW; torch" in log


def test_a_resumed_run_does_not_draw_the_first_steps_noise_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: list[float] = []
    losses = ToyDetector.losses

    def drawing(model: ToyDetector, samples: list, memory: Any) -> Any:
        draws.append(float(torch.rand(())))
        return losses(model, samples, memory)

    monkeypatch.setattr(ToyDetector, "losses", drawing)
    run_tool(tmp_path, "train.max_iter=2")
    run_tool(tmp_path, "--resume", "train.max_iter=4")
    run_tool(tmp_path, "--resume", "train.max_iter=6")  # nor those of the first resume
    run_tool(tmp_path / "again", "train.max_iter=2")
    assert len(set(draws[:6])) == 6
    assert draws[6:] == draws[:2]  # a run that starts anew does draw them again


def test_weights_alone_cannot_be_resumed_from(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=2")
    rewrite(tmp_path, {"model": final(tmp_path)["model"]})
    with pytest.raises(SystemExit, match=r"weights only, no state of the trainer.*without --resum"):
        run_tool(tmp_path, "--resume", "train.max_iter=4")
    run_tool(tmp_path, f"train.init_checkpoint={tmp_path / 'model_final.pth'}", "train.max_iter=2")


def test_a_forgotten_resume_with_a_bad_checkpoint_costs_nothing(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=4")
    curves = (tmp_path / "metrics.json").read_text()
    with pytest.raises(SystemExit, match="'gone.pth' does not exist"):
        run_tool(tmp_path, "train.init_checkpoint=gone.pth")
    assert (tmp_path / "metrics.json").read_text() == curves
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    run_tool(tmp_path, "--resume", "train.max_iter=6")
    assert "training from iteration 4 to 6" in (tmp_path / "log.txt").read_text()


def test_a_resume_past_the_end_is_an_error_and_at_the_end_is_said(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=4")
    config = (tmp_path / "config.yaml").read_text()
    message = (
        r"cannot resume: .*model_final.pth has 4 iterations, and train.max_iter asks for 3. To "
        r"train on, pass a train.max_iter above 4; .*--eval-only --resume"
    )
    with pytest.raises(SystemExit, match=message):
        run_tool(tmp_path, "--resume", "train.max_iter=3")
    assert (tmp_path / "config.yaml").read_text() == config
    with pytest.raises(SystemExit, match="schedule.epochs asks for 2"):
        run_tool(tmp_path, "--resume", "schedule.epochs=0.125")
    run_tool(tmp_path, "--resume", "train.max_iter=4")
    log = (tmp_path / "log.txt").read_text()
    assert "nothing is left to train: " in log and "has all 4 iterations" in log
    assert log.count("Start inference on") == 2


def test_a_last_checkpoint_that_names_a_missing_file(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=4")
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    message = "names 'model_0000009.pth', which is not in .*(model_final.pth).*leave out --resume"
    for words in (["--resume"], ["--eval-only", "--resume"]):
        with pytest.raises(SystemExit, match=message):
            run_tool(tmp_path, *words)


def test_resume_does_not_start_anew_beside_checkpoints(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=4")
    name = (tmp_path / "last_checkpoint").read_text()
    (tmp_path / "last_checkpoint").unlink()
    (tmp_path / "checkpoints.sha256").unlink()
    with pytest.raises(SystemExit, match="no last_checkpoint, but model_final.pth of an earlier"):
        run_tool(tmp_path, "--resume", "train.max_iter=6")
    (tmp_path / "last_checkpoint").write_text(name)
    run_tool(tmp_path, "--resume", "train.max_iter=6")


def test_another_batch_needs_a_word(tmp_path: Path, caplog) -> None:
    """16 iterations of 4 lanes are an epoch; with 2 lanes, an epoch has 32."""
    run_tool(tmp_path, "train.max_iter=16")
    words = ("--resume", "dataloader.train.lanes_per_rank=2", "train.max_iter=null")
    message = (
        r"trained with 4 lanes in all processes, this run has 2 lanes in all processes. To go on "
        r"exactly, .* lanes times processes is 4, and train.accumulate=1; or pass "
        r"train.restart_streams=True.* epoch 1"
    )
    with pytest.raises(SystemExit, match=message):
        run_tool(tmp_path, *words)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    run_tool(tmp_path, *words, "train.restart_streams=True")
    log = (tmp_path / "log.txt").read_text()
    assert "begin anew at epoch 1, and training ends after 48 iterations" in log
    assert "training from iteration 16 to 48" in log


def test_accumulation_is_part_of_the_batch(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=16")  # an epoch
    words = ("--resume", "train.accumulate=2", "train.max_iter=null", "train.log_period=1")
    with pytest.raises(SystemExit, match=r"this run has 4 lanes in all processes and train.accumu"):
        run_tool(tmp_path, *words)
    run_tool(tmp_path, *words, "train.restart_streams=True")
    assert "training from iteration 16 to 24" in (tmp_path / "log.txt").read_text()
    hooks = final(tmp_path)["trainer"]["hooks"]
    assert hooks["StreamStateHook"]["delivered"] == 32  # batches of two epochs


def test_another_batch_is_a_warning_where_iterations_were_asked_for(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=16")
    run_tool(tmp_path, "--resume", "dataloader.train.lanes_per_rank=2", "train.max_iter=20")
    log = (tmp_path / "log.txt").read_text()
    assert "this run has 2 lanes in all processes; the streams begin anew at epoch 1" in log
    assert "training from iteration 16 to 20" in log


@pytest.mark.parametrize("by_name", [False, True])
def test_an_altered_checkpoint_is_not_evaluated(tmp_path: Path, by_name: bool) -> None:
    run_tool(tmp_path, "train.max_iter=2")
    path = tmp_path / "model_final.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    words = [f"train.init_checkpoint={path}"] if by_name else ["--resume"]
    with pytest.raises(SystemExit, match=r"model_final.pth is damaged: its SHA-256.*init_checkpoi"):
        run_tool(tmp_path, "--eval-only", *words)


def test_a_null_evaluator_evaluates_nothing(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=2", "dataloader.evaluator=null")
    assert "no dataloader.evaluator: nothing is evaluated" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "model_final.pth").exists()


class Nested(torch.nn.Module):
    """A backbone with its ViT as `net`, as the real ones."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(4, 8)

    @property
    def weight(self) -> torch.Tensor:
        return self.net.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class NestedDetector(ToyDetector):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Nested()


def start(output: Path, weights: dict[str, torch.Tensor], *words: str) -> dict[str, torch.Tensor]:
    """The weights after a training of one step at rate 0."""
    torch.save({"model": weights}, output / "start.pth")
    checkpoint = f"train.init_checkpoint={output / 'start.pth'}"
    fixed = (checkpoint, f"train.output_dir={output}", "train.max_iter=1", "optimizer.lr=0")
    cfg = load_config(CONFIG, [*fixed, *words])
    cfg.model = LazyCall(NestedDetector)()
    train(cfg)
    return final(output)["model"]


def test_what_a_start_may_lack_is_the_configurations_choice(tmp_path: Path, caplog) -> None:
    whole = NestedDetector().state_dict()
    half = {name: value for name, value in whole.items() if name != "backbone.net.bias"}
    with pytest.raises(RuntimeError, match=r"half a backbone.*train.init_allow_partial=True"):
        start(tmp_path, half)
    with caplog.at_level(logging.INFO):
        trained = start(tmp_path, half, "train.init_allow_partial=True")
    assert torch.equal(trained["backbone.net.weight"], whole["backbone.net.weight"])

    other = {**whole, "head.1.bias": torch.zeros(3)}
    with pytest.raises(RuntimeError, match=r"another shape.*init_allow_wrong_shape=True"):
        start(tmp_path, other)
    trained = start(tmp_path, other, "train.init_allow_wrong_shape=True")
    assert torch.equal(trained["backbone.net.weight"], whole["backbone.net.weight"])
    assert trained["head.1.bias"].shape == (1,)


def _first_moments(state: dict[str, Any]) -> list[torch.Tensor]:
    return [entry["exp_avg"] for entry in state["trainer"]["optimizer"]["state"].values()]


def _damage_hooks(state: dict[str, Any]) -> None:
    state["trainer"]["hooks"] = 5


def _damage_iteration(state: dict[str, Any]) -> None:
    state["trainer"]["iteration"] = -5


def _damage_all(state: dict[str, Any]) -> None:
    state["trainer"] = {}


def _damage_moments(state: dict[str, Any]) -> None:
    for moment in _first_moments(state):
        moment.fill_(float("nan"))


def _damage_shapes(state: dict[str, Any]) -> None:
    for entry in state["trainer"]["optimizer"]["state"].values():
        entry["exp_avg"] = entry["exp_avg"].flatten()[:0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_damage_hooks, "state of the trainer is damaged.*TypeError.*earlier checkpoint"),
        (_damage_iteration, "iteration is -5, no whole number"),
        (_damage_all, "state of the trainer is damaged.*KeyError"),
        (_damage_moments, "exp_avg of tensor 0 holds NaN.*earlier checkpoint"),
        (_damage_shapes, r"exp_avg of tensor 0 is \(0,\) in the checkpoint.*another order"),
    ],
)
def test_a_damaged_state_of_training_is_one_line(tmp_path: Path, damage: Any, message: str) -> None:
    run_tool(tmp_path, "train.max_iter=2")
    state = final(tmp_path)
    damage(state)
    rewrite(tmp_path, state)
    with pytest.raises(SystemExit, match=message):
        run_tool(tmp_path, "--resume", "train.max_iter=4")


def test_a_last_checkpoint_that_is_no_text(tmp_path: Path) -> None:
    run_tool(tmp_path, "train.max_iter=2")
    (tmp_path / "last_checkpoint").write_bytes(b"\x9a\xff")
    with pytest.raises(SystemExit, match=r"write the name of a checkpoint.*model_final.pth"):
        run_tool(tmp_path, "--resume", "train.max_iter=4")
