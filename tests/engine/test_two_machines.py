"""Two machines that are one: two launching processes, or two agents of torchrun, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from started_tool import end_all, start_python, wait_for

from streampetr_vit.engine import load_config, setup, train
from streampetr_vit.engine.failures import ProcessError
from streampetr_vit.engine.processes import launch
from streampetr_vit.errors import one_line_errors

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIG = str(HERE / "toy_config.py")
WITHIN_S = 60  # a rank that dies ends all others within a minute
WAIT_S = 90.0  # for a moment of a run on two machines


def settings(run: Path, max_iter: int) -> list[str]:
    return [
        "dataloader.train.seconds=0.01",
        "dataloader.train.lanes_per_rank=2",
        "train.log_period=1",
        "train.checkpointer.period=10",
        f"train.max_iter={max_iter}",
        f"train.output_dir={run}",
    ]


@one_line_errors()
def main(run: str, resume: bool) -> None:
    """One process of the job."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the loaders' server ignores it
    Path(run).mkdir(exist_ok=True)
    Path(run, f"pid{comm.get_rank()}").write_text(str(os.getpid()))
    cfg = load_config(CONFIG, settings(Path(run), 2000))
    setup(cfg)
    train(cfg, resume)


class Machine(threading.Thread):
    """A launching process of one machine, with one rank."""

    def __init__(self, rank: int, url: str, run: Path, resume: bool) -> None:
        super().__init__(daemon=True)
        self._numbers = dict(num_machines=2, machine_rank=rank, dist_url=url, use_gpu=False)
        self._arguments = (str(run), resume)
        self.end: BaseException | None = None

    def run(self) -> None:
        try:
            launch(main, self._arguments, **self._numbers)
        except (SystemExit, ProcessError) as end:
            self.end = end


def started(run: Path, resume: bool = False) -> list[Machine]:
    url = f"tcp://127.0.0.1:{free_port()}"
    machines = [Machine(rank, url, run, resume) for rank in range(2)]
    for machine in machines:
        machine.start()
    return machines


def ends(machines: list[Machine]) -> list[BaseException | None]:
    for machine in machines:
        machine.join(WITHIN_S)
        assert not machine.is_alive()
    return [machine.end for machine in machines]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_what_happens_on_one_machine_ends_both_and_both_go_on(
    tmp_path: Path, quick_processes: None, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    machines = started(run)
    wait_for(run / "metrics.json", '"iteration": 14,', WAIT_S)
    os.kill(int((run / "pid1").read_text()), signal.SIGKILL)
    on_0, on_1 = ends(machines)
    assert isinstance(on_0, SystemExit) and on_0.code == 1
    assert "process 0 of this machine was ended by SIGKILL" in str(on_1)
    printed = capfd.readouterr().err
    name = f"rank 1 on machine 1 ({socket.gethostname()})"
    assert printed.count(f"error: {name} was ended by SIGKILL, without a word\n") == 1
    assert "Traceback" not in printed

    machines = started(run, resume=True)
    wait_for(run / "log.txt", "training from iteration 10 to 2000", WAIT_S)
    wait_for(run / "metrics.json", '"iteration": 17,', WAIT_S)
    os.kill(int((run / "pid1").read_text()), signal.SIGTERM)
    assert [end.code for end in ends(machines)] == [143, 143]
    number = int((run / "last_checkpoint").read_text()[len("model_") : -len(".pth")])
    assert number > 16
    for log in ("log.txt", "log.txt.rank1"):
        assert f"training stopped after iteration {number}" in (run / log).read_text()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """An agent of torchrun on each machine, the same command on both."""
    words = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=1"]
    words += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
    tool = [str(ROOT / "tools" / "lazyconfig_train_net.py"), "--config-file", CONFIG]
    arguments = [*words, *tool, *settings(tmp_path / "run", 40)]
    processes = [start_python(arguments, tmp_path / f"printed{machine}") for machine in range(2)]
    yield processes
    end_all(processes)


def test_torchrun_starts_both_machines_again_and_they_go_on(
    agents: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    """One of them counts no restart of its own. Still they meet, and nothing is set aside."""
    run = tmp_path / "run"
    wait_for(run / "metrics.json", '"iteration": 14,', WAIT_S)
    pid = agents[1].pid
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert [agent.wait(120) for agent in agents] == [0, 0]
    log = (run / "log.txt").read_text()
    assert "torchrun has restarted this job: it goes on from its last checkpoint" in log
    assert "training from iteration 10 to 40" in log
    assert not list(run.glob("earlier_*")) and (run / "model_final.pth").is_file()
