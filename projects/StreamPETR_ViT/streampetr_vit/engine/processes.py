"""Starting the processes of a job, and ending all of them when one fails."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from streampetr_vit.checkpoint.background import finish_writes
from streampetr_vit.engine import group
from streampetr_vit.engine.failures import LostProcessError, ProcessError, failures_in_words
from streampetr_vit.engine.place import (
    Place,
    check_machines,
    place_of_launcher,
    processes_on_cpu,
)
from streampetr_vit.engine.signals import passing_on_signals
from streampetr_vit.errors import InputError, UserError

Main = Callable[..., None]
# Exit status of a process that ended because another did: that one's words are better.
_LOST = 75
# Exit statuses of processes that ended in order after a signal, perhaps before rank 0 has saved.
_ASKED_TO_END = (128 + signal.SIGINT, 128 + signal.SIGTERM)
# Seconds for the other processes to end by themselves, and then once more after SIGTERM.
_GRACE_S = 10.0
# Further seconds for a checkpoint that is being written.
_WRITE_S = 30.0


def launch(
    main: Main,
    args: tuple[Any, ...],
    *,
    num_processes: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    use_gpu: bool | None = None,
) -> None:
    """Runs `main(*args)` in one or more processes, with a process group between them.

    Under `torchrun` this process is one of the group, and the numbers given here are not used.

    Args:
        main: importable by name, because the other processes are new interpreters.
        args: its arguments, picklable.
        num_processes: on each machine; 0 counts as 1. A single process is this one.
        num_machines, machine_rank: how many take part, and the index of this one.
        dist_url: where rank 0 listens, for example "tcp://10.0.0.1:29500". None on one machine
            takes a free port.
        use_gpu: None uses the GPUs if there are any.

    Raises:
        InputError: the numbers make no job, more processes than GPUs, the processes do not meet.
        ProcessError: a process was killed, lost the others, or used up its memory.
        SystemExit: one of several processes failed; why is printed.
    """
    # Not detectron2's `launch`: v0.6 requires a GPU, and knows nothing of torchrun.
    use_gpu = torch.cuda.is_available() if use_gpu is None else use_gpu
    place = place_of_launcher(os.environ)
    if place is not None:
        _run(place, use_gpu, main, args, lambda line: print(line, file=sys.stderr, flush=True))
        return
    dist_url = None if dist_url == "auto" else dist_url  # detectron2's word for a free port
    check_machines(num_machines, machine_rank, dist_url)
    _check_gpus(num_processes, use_gpu)
    num_processes = max(num_processes, 1)
    if num_processes > 1 and not use_gpu:
        print(processes_on_cpu(num_processes), flush=True)
    if num_processes * num_machines == 1:
        with failures_in_words():
            main(*args)
        return
    # Held here and not by rank 0, no two runs of a machine can choose the same port.
    store = None if dist_url else dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    first = Place(
        rank=machine_rank * num_processes,
        world_size=num_processes * num_machines,
        machine=str(machine_rank),
        local_rank=0,
        url=dist_url or "",
        port=store.port if store else None,
    )
    if num_machines > 1:
        print(
            f"machine {machine_rank} of {num_machines} waits for the others at {dist_url} for up "
            f"to {group.START_TIMEOUT}",
            flush=True,
        )
    _start_and_wait(num_processes, first, use_gpu, main, args)


def _check_gpus(num_processes: int, use_gpu: bool) -> None:
    if num_processes < 0:
        raise InputError(f"--num-gpus {num_processes}: give the number of GPUs, or 0 for the CPU")
    if use_gpu and num_processes > torch.cuda.device_count():
        raise InputError(
            f"--num-gpus {num_processes}, but this machine has {torch.cuda.device_count()}: pass "
            "that many or fewer, or --num-gpus 0 for the CPU"
        )


def _start_and_wait(
    num_processes: int, first: Place, use_gpu: bool, main: Main, args: tuple[Any, ...]
) -> None:
    """Starts the processes of this machine, the first of them at `first`."""
    with tempfile.TemporaryDirectory(prefix="streampetr_vit_") as folder:
        # Not mp.spawn: of a process that fails it shows a traceback of its own.
        context = mp.start_processes(
            _child, (first, use_gpu, main, args, folder), nprocs=num_processes, join=False
        )

        def tell_others(index: int, how: str) -> None:
            place = replace(first, rank=first.rank + index, local_rank=index)
            group.tell_others(place, f"{how}, without a word")

        _wait(context.processes, Path(folder), tell_others)


def _run(
    place: Place,
    use_gpu: bool,
    main: Main,
    args: tuple[Any, ...],
    say: Callable[[str], object],
) -> None:
    """Runs `main` between joining the group and leaving it.

    Args:
        place, use_gpu, main, args: see `launch`.
        say: takes the last line of a process that is ended because another one has failed.
    """

    def end(reason: str) -> NoReturn:
        say(_line(reason))
        finish_writes(_WRITE_S)  # the steps of that checkpoint would be lost
        os._exit(_LOST)  # the main thread waits where no exception reaches it

    with failures_in_words():
        watch = group.join(place, use_gpu)
    watch.start(end)
    try:
        with watch, failures_in_words():
            main(*args)
    except BaseException:
        if not use_gpu:  # leaving an NCCL group could wait for the others
            group.leave()
        raise
    group.leave()


def _child(
    index: int, first: Place, use_gpu: bool, main: Main, args: tuple[Any, ...], folder: str
) -> None:
    """A started process. Why it fails is left in a file, and the launching process prints it."""
    place = replace(first, rank=first.rank + index, local_rank=index)
    status, message = 1, ""
    file = Path(folder, str(index))
    try:
        _run(place, use_gpu, main, args, file.write_text)
        return
    except SystemExit as stop:  # `main` has made a line of its error
        if isinstance(stop.code, str):
            message = stop.code
        else:
            status = stop.code
    except LostProcessError as error:  # the same words on all ranks: they are printed once
        status, message = _LOST, _line(str(error))
    except UserError as error:
        message = _line(f"rank {place.rank}: {error}")
    except Exception:  # a fault of the program
        message = f"rank {place.rank}: {traceback.format_exc()}"
    file.write_text(message)
    sys.exit(status)


def _line(text: str) -> str:
    return f"{os.path.basename(sys.argv[0])}: error: {text}"


def _wait(
    processes: Sequence[BaseProcess], folder: Path, tell_others: Callable[[int, str], None]
) -> None:
    """Waits for all; a while after the first that fails, ends the others and says why.

    Args:
        processes: of this machine.
        folder: where they leave their last words, in files that have their index as name.
        tell_others: takes the index of a process that ended without a word, and how it ended.
    """
    with passing_on_signals() as signals:
        running = list(processes)
        # A second signal: the user does not want to wait for the end of a step.
        while running and len(signals) < 2 and not any(map(_failed, processes)):
            multiprocessing.connection.wait([p.sentinel for p in running], timeout=1.0)
            running = [process for process in running if process.is_alive()]
        for index, process in enumerate(processes):
            if _failed(process) and not (folder / str(index)).exists():
                tell_others(index, _how_ended(process.exitcode or 0))
        _join(running, _GRACE_S)
        # What ended by itself; the others only follow.
        status = {i: p.exitcode for i, p in enumerate(processes) if p.exitcode}
        _end(processes)
    if signals and not any(code > 0 for code in status.values()):
        sys.exit(128 + signals[0])  # as a shell reports a program that a signal has ended
    if status:
        _say_why(status, folder)


def _say_why(status: dict[int, int], folder: Path) -> NoReturn:
    """Prints what the processes have left to say, each fault once, and ends this one.

    Args:
        status: of the processes that failed, by their index.
        folder: of the files that they left.
    """
    messages = {i: (folder / str(i)).read_text() for i in status if (folder / str(i)).exists()}
    known = [index for index in messages if status[index] != _LOST]
    sudden = [index for index in status if index not in messages]
    if sudden and not known:
        index = sudden[0]
        raise ProcessError(
            f"process {index} of this machine {_how_ended(status[index])}, without a word: if you "
            "did not end it, the machine may have run out of memory (see dmesg): lower "
            "dataloader.train.num_workers or dataloader.train.lanes_per_rank"
        )
    # Often all processes find the same fault.
    for message in dict.fromkeys(messages[index] for index in known or messages):
        if message:
            print(message, file=sys.stderr)
    sys.exit(max((status[index] for index in known), default=1))


def _how_ended(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended, status {status}"


def _end(processes: Sequence[BaseProcess]) -> None:
    """Ends those that still run, by force if they do not do it themselves."""
    for stop in (BaseProcess.terminate, BaseProcess.kill):
        for process in filter(BaseProcess.is_alive, processes):
            stop(process)
        _join(processes, _GRACE_S + _WRITE_S)


def _failed(process: BaseProcess) -> bool:
    return process.exitcode not in (None, 0, *_ASKED_TO_END)


def _join(processes: Sequence[BaseProcess], seconds: float) -> None:
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
