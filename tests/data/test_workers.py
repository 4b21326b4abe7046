"""Loading processes: how they begin, and that none outlives its loader."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from streampetr_vit.data.at_work import at_work
from streampetr_vit.data.build import build_train_loader
from streampetr_vit.data.loaders import ReadingError
from streampetr_vit.data.mapper import NuScenesMapper
from streampetr_vit.data.transforms import ImageAugmentation
from streampetr_vit.data.workers import worker_context
from streampetr_vit.engine.failures import ProcessError, user_error
from streampetr_vit.errors import InputError

IMAGE = ImageAugmentation((16, 40), (0.3, 0.5))


@pytest.fixture
def this_process_as_it_was() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGINT)
    threads, states = cv2.getNumThreads(), (random.getstate(), np.random.get_state())
    yield
    signal.signal(signal.SIGINT, handler)
    cv2.setNumThreads(threads)
    random.setstate(states[0])
    np.random.set_state(states[1])


def loader_of(root: Path, **options) -> DataLoader:
    mapper = NuScenesMapper(training=True, image_aug=IMAGE)
    dataset = {"root": root, "version": "v1.0-mini", "split": "mini_train"}
    options = {"lanes_per_rank": 1, "world_size": 2, "sequence_split": 2, **options}
    return build_train_loader(dataset, mapper, **options)._loader


def test_workers_of_all_ranks_have_seeds_of_their_own(
    tiny_nuscenes: Path, this_process_as_it_was: None
) -> None:
    drawn = []
    for rank in (0, 1):
        loader = loader_of(tiny_nuscenes, rank=rank, num_workers=3, seed=7)
        for worker in range(3):
            loader.worker_init_fn(worker)
            drawn.append((random.random(), np.random.rand()))
    expected = [(random.Random(s).random(), np.random.RandomState(s).rand()) for s in range(7, 13)]
    assert drawn == expected


def test_a_worker_begins_with_one_thread_and_without_interrupts(
    tiny_nuscenes: Path, this_process_as_it_was: None
) -> None:
    cv2.setNumThreads(2)
    loader_of(tiny_nuscenes, rank=0, num_workers=1).worker_init_fn(0)
    assert cv2.getNumThreads() == 1
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_workers_are_never_forked_from_the_training_process(tiny_nuscenes: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    kind = worker_context().get_start_method()
    assert kind == "forkserver" and signal.getsignal(signal.SIGTERM) is before
    loader = loader_of(tiny_nuscenes, rank=0, num_workers=1)
    assert loader.multiprocessing_context.get_start_method() == kind
    assert loader_of(tiny_nuscenes, rank=0, num_workers=0).multiprocessing_context is None


@pytest.mark.parametrize("guard", [False, True])
def test_a_script_without_a_guard_forks(tiny_nuscenes: Path, tmp_path: Path, guard: bool) -> None:
    """From a file and from stdin it plays the data set once; the log says what is missing."""
    lines = [
        "from streampetr_vit.data.build import build_test_loader",
        "from streampetr_vit.data.mapper import NuScenesMapper",
        "from streampetr_vit.data.transforms import ImageAugmentation",
        "mapper = NuScenesMapper(training=False, image_aug=ImageAugmentation((16, 40), (1, 1)))",
        f"data = dict(root={str(tiny_nuscenes)!r}, version='v1.0-mini', split='mini_val')",
        "loader = build_test_loader(data, mapper, num_workers=1)",
        "method = loader._loader.multiprocessing_context.get_start_method()",
        "print(method, sum(len(batch) for batch in loader))",
    ]
    if guard:
        lines = [*lines[:3], 'if __name__ == "__main__":', *(f"    {line}" for line in lines[3:])]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines))
    runs = [[sys.executable, str(script)], *([] if guard else [[sys.executable, "-"]])]
    for command in runs:
        with script.open() as text:
            done = subprocess.run(command, stdin=text, capture_output=True, text=True)
        assert done.stdout.split() == ["forkserver" if guard else "fork", "6"], done.stderr
        assert ("forked from this one" in done.stderr) is not guard


KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from multiprocessing import forkserver
sys.path.insert(0, {folder!r})
from test_workers import loader_of

if __name__ == "__main__":
    batches = iter(loader_of(Path({root!r}), rank=0, num_workers=1))
    next(batches)
    server = forkserver._forkserver._forkserver_pid
    print(server, batches._workers[0].pid, flush=True)
    # A cluster sends it to all processes; they live on.
    subprocess.run(["kill", str(server), str(batches._workers[0].pid)], check=True)
    for _ in range(5):
        next(batches)
    print("went on", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_training_leaves_no_process(tiny_nuscenes: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    here = str(Path(__file__).parent)
    script.write_text(KILLED.format(folder=here, root=str(tiny_nuscenes)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL and "went on" in done.stdout, done.stderr
    left = [int(pid) for pid in done.stdout.split()[:2]]
    end = time.monotonic() + 20
    while any(map(is_alive, left)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_alive, left))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Its parent is gone; whoever takes its place may not have asked for its status.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or ") Z " not in status.read_text()


class RefusingMapper(NuScenesMapper):
    def __call__(self, *_: object, **__: object) -> None:
        raise InputError("picture 3: half of it is missing: take another one")


def test_what_a_user_can_mend_keeps_its_words_on_the_way_from_a_worker(
    tiny_nuscenes: Path,
) -> None:
    dataset = {"root": tiny_nuscenes, "version": "v1.0-mini", "split": "mini_train"}
    mapper = RefusingMapper(training=True, image_aug=IMAGE)
    loader = build_train_loader(dataset, mapper, lanes_per_rank=1, num_workers=1)
    with pytest.raises(InputError) as failure:
        next(iter(loader))
    words = "): picture 3: half of it is missing: take another one"
    assert str(failure.value).endswith(words) and "\n" not in str(failure.value)


class DyingMapper(NuScenesMapper):
    """Ends its process while it reads the third picture of a frame, as a broken decoder does."""

    how = ""

    def _image(self, record, camera: int, *rest: object) -> None:
        if camera == 2 and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif camera == 2 and self.how == "exit":
            os._exit(3)
        elif camera == 2:
            raise ZeroDivisionError("no such pixel")
        super()._image(record, camera, *rest)


def failure_of(root: Path, mapper: NuScenesMapper, workers: int) -> tuple[BaseException, str]:
    """What a loader raises at its first batch, and the sample that this batch begins with."""
    dataset = {"root": root, "version": "v1.0-mini", "split": "mini_train"}
    loader = build_train_loader(dataset, mapper, lanes_per_rank=1, num_workers=workers)
    frame = next(iter(loader.sampler))[0].frame
    with pytest.raises((RuntimeError, InputError)) as failure:
        next(iter(loader))
    error = user_error(failure.value) or failure.value
    record = loader.dataset.records[frame]
    name = f"sample {record.token} (frame {frame} of the data set, {record.scene_name})"
    return error, f"{name}, picture {record.picture(2)}"


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_worker_that_dies_is_named_with_its_sample_and_picture(
    tiny_nuscenes: Path, how: str
) -> None:
    mapper = DyingMapper(training=True, image_aug=IMAGE)
    mapper.how = how
    error, sample = failure_of(tiny_nuscenes, mapper, workers=1)
    assert isinstance(error, ProcessError)
    assert f"a loading process ended: exited unexpectedly. It was reading {sample}. " in str(error)


@pytest.mark.parametrize("workers", [0, 1])
def test_any_error_of_a_mapper_names_its_sample(tiny_nuscenes: Path, workers: int) -> None:
    error, sample = failure_of(tiny_nuscenes, DyingMapper(training=True, image_aug=IMAGE), workers)
    sample = sample.partition(", picture")[0]
    assert isinstance(error, ReadingError)
    assert f"{sample}: ZeroDivisionError: no such pixel" in str(error)
    error, _ = failure_of(tiny_nuscenes, RefusingMapper(training=True, image_aug=IMAGE), workers)
    assert isinstance(error, InputError) and "picture 3: half of it is missing" in str(error)
    assert str(error).startswith(f"{sample}: picture 3") and "Traceback" not in str(error)


def test_what_is_read_now_is_known_of_workers_only(tiny_nuscenes: Path) -> None:
    mapper = NuScenesMapper(training=True, image_aug=IMAGE)
    dataset = {"root": tiny_nuscenes, "version": "v1.0-mini", "split": "mini_train"}
    loader = build_train_loader(dataset, mapper, lanes_per_rank=1, num_workers=1)
    batches = iter(loader._loader)
    next(batches)
    time.sleep(0.5)  # it has read ahead what it may, and waits
    assert at_work(batches._workers[0].pid) == "no sample"
    assert at_work(os.getpid()) is None
