"""One rank decides for all, and where one fails, all end with its reason."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import lazyconfig_train_net
import pytest
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from streampetr_vit.engine import load_config, train
from streampetr_vit.engine.agreement import on_all_ranks, on_rank_0
from streampetr_vit.engine.processes import launch
from streampetr_vit.errors import CheckpointError, InputError, UserError

CONFIG = str(Path(__file__).with_name("toy_config.py"))
HOST = socket.gethostname()


def refuse(text: str) -> None:
    raise CheckpointError(text)


def note(folder: Path, name: str, work) -> None:
    """Writes what a call of this rank gives, or how it fails."""
    try:
        found = work()
    except UserError as error:
        found = f"{type(error).__name__}: {error}"
    (folder / f"{name}{comm.get_rank()}").write_text(json.dumps(found))


def agree(folder: Path) -> None:
    rank = comm.get_rank()
    note(folder, "told", lambda: on_rank_0(lambda: {"rank": rank}))
    note(folder, "failed", lambda: on_rank_0(lambda: refuse("gone")))
    note(folder, "own", lambda: on_all_ranks(lambda: rank))
    note(folder, "one", lambda: on_all_ranks(lambda: refuse("not here") if rank == 1 else rank))
    note(folder, "all", lambda: on_all_ranks(lambda: refuse(f"of rank {rank}")))


def start_two(work, *arguments: object, folder: Path) -> None:
    launch(
        work,
        arguments,
        num_processes=2,
        dist_url=f"file://{folder}/rendezvous{len(list(folder.iterdir()))}",
        use_gpu=False,
    )


def test_results_and_errors_reach_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    start_two(agree, tmp_path, folder=tmp_path)

    def noted(name: str) -> list[object]:
        return [json.loads((tmp_path / f"{name}{rank}").read_text()) for rank in (0, 1)]

    assert noted("told") == [{"rank": 0}] * 2
    assert noted("failed") == ["CheckpointError: gone"] * 2
    assert noted("own") == [0, 1]
    assert noted("one") == [f"CheckpointError: rank 1 on {HOST}: not here"] * 2
    assert noted("all") == ["CheckpointError: of rank 0", "CheckpointError: of rank 1"]


def train_on_own_disks(folder: Path, words: list[str], resume: bool) -> None:
    """A training whose ranks have an output folder each, as machines without a shared one."""
    rank = comm.get_rank()
    overrides = [*words, "train.max_iter=6", "dataloader.train.lanes_per_rank=2"]
    overrides = [word.replace("RANK", str(rank)) for word in overrides]
    output = f"train.output_dir={folder / f'disk{rank}'}"

    def run() -> None:
        train(load_config(CONFIG, [*overrides, output]), resume)

    note(folder, "run", run)


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training of four steps on one disk."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    output = f"train.output_dir={tmp_path / 'disk0'}"
    words = ["--config-file", CONFIG, "train.max_iter=4", output]
    lazyconfig_train_net.main(default_argument_parser().parse_args(words))
    return tmp_path


def test_a_checkpoint_that_only_rank_0_sees_ends_all_ranks(disks: Path) -> None:
    """Rank 1 would begin at 0, and both would wait for each other without end."""
    # Every rank asks for the path that rank 0 found: here it exists for all, so rank 1's is moved.
    start_two(train_without_sight, disks, folder=disks)
    for rank in (0, 1):
        found = json.loads((disks / f"run{rank}").read_text())
        assert found.startswith(f"CheckpointError: rank 1 on {HOST}: this machine does not have ")
        assert "a folder that all machines share, or copy that file here" in found
        assert str(disks / "disk0" / "model_final.pth") in found


def train_without_sight(folder: Path) -> None:
    """Rank 1 does not see the checkpoint of rank 0."""
    import os

    seen = os.path.isfile
    if comm.get_rank() == 1:
        os.path.isfile = lambda path: not str(path).endswith("model_final.pth") and seen(path)
    train_on_own_disks(folder, [], resume=True)


def test_rank_0_decides_where_to_go_on(disks: Path) -> None:
    """Rank 1 has another checkpoint on its own disk, and takes rank 0's."""
    shutil.copytree(disks / "disk0", disks / "disk1")
    (disks / "disk1" / "last_checkpoint").write_text("model_0000000.pth")
    start_two(train_on_own_disks, disks, [], True, folder=disks)
    assert [json.loads((disks / f"run{rank}").read_text()) for rank in (0, 1)] == [None, None]
    rows = (disks / "disk0" / "metrics.json").read_text().splitlines()
    assert max(json.loads(row)["iteration"] for row in rows) >= 5


def test_start_weights_that_one_machine_lacks(disks: Path) -> None:
    shutil.copy(disks / "disk0" / "model_final.pth", disks / "start0.pth")
    words = [f"train.init_checkpoint={disks}/startRANK.pth"]
    start_two(train_on_own_disks, disks, words, False, folder=disks)
    for rank in (0, 1):
        found = json.loads((disks / f"run{rank}").read_text())
        assert f"rank 1 on {HOST}: checkpoint '{disks}/start1.pth' does not exist" in found
    # Nothing of the earlier run was moved for a run that did not begin.
    assert (disks / "disk0" / "last_checkpoint").is_file()


def test_one_process_asks_nobody() -> None:
    assert on_rank_0(lambda: 3) == on_all_ranks(lambda: 3) == 3
    with pytest.raises(InputError, match="^plain$"):
        on_all_ranks(lambda: (_ for _ in ()).throw(InputError("plain")))
