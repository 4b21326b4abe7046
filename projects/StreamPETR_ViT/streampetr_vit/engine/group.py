"""Joining the other processes of a job, and leaving them."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.distributed.distributed_c10d import _set_pg_timeout

from streampetr_vit.engine.place import Place
from streampetr_vit.engine.watch import Watch, tell
from streampetr_vit.errors import InputError

# How long processes wait for each other at the start: other machines may have to load a container.
START_TIMEOUT = timedelta(minutes=5)
# After this long, a start that torch has not ended by then is ended by this module.
_HANGS_AFTER = 2 * START_TIMEOUT
# How long a process waits for the others in one exchange. Rank 0 works alone for long: it scores
# the validation set, draws the report and writes checkpoints. torch's 10 minutes for NCCL and 30
# for gloo have ended such runs. A process that died is noticed at once all the same.
GROUP_TIMEOUT = timedelta(hours=3)
# How long a launching process tries to tell the others of a process that is gone.
_TELL_TIMEOUT = timedelta(seconds=5)
# The part of the store that a job uses.
_PREFIX = "streampetr_vit"


def join(place: Place, use_gpu: bool) -> Watch:
    """Joins the process group and makes detectron2's group of this machine's processes.

    Args:
        place: of this process.
        use_gpu: NCCL, and this process's GPU becomes torch's current device; else gloo.

    Returns:
        The watch over the other processes, not yet begun.

    Raises:
        InputError: the processes do not meet, or their GPUs do not go together.
    """
    with _bounded(place):
        store = _of_this_start(_meet(place), place)
        kinds = _exchange(store, place, "kind", "GPU" if use_gpu else "CPU")
        if kinds[place.rank] != kinds[0]:
            raise InputError(
                f"rank {place.rank} on {place.machine} runs on the {kinds[place.rank]}, rank 0 on "
                f"the {kinds[0]}: check the driver (nvidia-smi) and torch of the machine without a "
                "GPU, or pass --num-gpus 0 on all"
            )
        machines = _exchange(store, place, "machine", place.machine)
        here = [rank for rank, machine in enumerate(machines) if machine == place.machine]
        if use_gpu:
            local = here.index(place.rank) if place.local_rank is None else place.local_rank
            # Before the group is made: NCCL, pinned memory and torch's questions about "the" GPU
            # take the current device.
            torch.cuda.set_device(_gpu_of(local))
            _check_one_gpu_each(place, machines, _exchange(store, place, "gpu", _gpu_name()))
        store.set_timeout(GROUP_TIMEOUT)  # NCCL and new groups meet there later
        dist.init_process_group(
            "nccl" if use_gpu else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.world_size,
            timeout=GROUP_TIMEOUT,
        )
        # detectron2 makes its gloo group with torch's 30 minutes.
        _set_pg_timeout(GROUP_TIMEOUT, comm._get_global_gloo_group())
        # As detectron2's create_local_process_group, which v0.6 lacks. Every rank takes part in
        # making every group, its own or not.
        for machine in dict.fromkeys(machines):
            ranks = [rank for rank, name in enumerate(machines) if name == machine]
            group = dist.new_group(ranks, timeout=GROUP_TIMEOUT)
            if machine == place.machine:
                comm._LOCAL_PROCESS_GROUP = group
        watch = Watch(store, place, _exchange(store, place, "name", place.name()))
        comm.synchronize()  # a network that NCCL cannot use shows here
    return watch


def tell_others(place: Place, reason: str) -> None:
    """Tells the processes of a job from outside of it that one of them is gone.

    Args:
        place: of that process.
        reason: for the others to print.
    """
    if place.port is None and place.rank == 0:
        return  # the store has ended with it
    url = urlsplit(place.url)
    if place.port is None and (url.scheme != "tcp" or url.hostname is None or url.port is None):
        return  # a store without an address; rank 0 notices by itself
    host, port = ("127.0.0.1", place.port) if place.port is not None else (url.hostname, url.port)
    try:
        # First without torch, which would print much if nobody listens.
        socket.create_connection((host, port), _TELL_TIMEOUT.total_seconds()).close()
        store = dist.TCPStore(host, port, is_master=False, timeout=_TELL_TIMEOUT)
        tell(dist.PrefixStore(_PREFIX, store), f"{place.name()} {reason}")
    except (OSError, RuntimeError):  # the store is gone, and that says as much
        return


def leave() -> None:
    """Destroys the process groups."""
    # A gloo group that is alive when Python ends aborts the process now and then. detectron2 keeps
    # two groups, and a wrapped model in a reference cycle keeps another.
    comm._get_global_gloo_group.cache_clear()
    comm._LOCAL_PROCESS_GROUP = None
    gc.collect()
    dist.destroy_process_group()


def _meet(place: Place) -> dist.Store:
    """The store that all processes share."""
    try:
        if place.port is not None:
            return dist.TCPStore("127.0.0.1", place.port, is_master=False, timeout=START_TIMEOUT)
        meeting = dist.rendezvous(place.url, place.rank, place.world_size, timeout=START_TIMEOUT)
        return next(meeting)[0]
    # torch asserts that there is a host.
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(_why_not_met(place, str(error))) from error


def _why_not_met(place: Place, reason: str) -> str:
    where = place.meeting_point()
    if "EADDRINUSE" in reason or "address already in use" in reason:
        return (
            f"{where}: another program, often another run, has this port. Choose another one, the "
            "same on all machines (tcp://HOST:PORT; torchrun: --master-port). On one machine leave "
            "out --dist-url (torchrun: --standalone), then a free port is found"
        )
    if "timed out" in reason.lower() or "timeout" in reason.lower():
        return (
            f"rank {place.rank} of {place.world_size} waited {_minutes()} at {where} and the "
            "others did not come: start all machines within that time, with the same address of "
            "machine 0, reachable from all (firewall?), and with machine ranks that differ"
        )
    return (
        f"{where}: {reason.splitlines()[0]}. Give the address of machine 0 and a free port of it, "
        "for example --dist-url tcp://10.0.0.1:29500"
    )


def _of_this_start(store: dist.Store, place: Place) -> dist.Store:
    """The part of the store that no earlier start of the processes has used."""
    store.set_timeout(START_TIMEOUT)
    store = dist.PrefixStore(_PREFIX, store)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return store
    # The store of torchrun's agent outlives the processes. Its counts of restarts cannot name a
    # start: each machine counts its own.
    try:
        return dist.PrefixStore(_agreed_name(store, place), store)
    except RuntimeError as error:
        raise InputError(_why_not_met(place, str(error))) from error


def _agreed_name(store: dist.Store, place: Place) -> str:
    """A name for this start that all its ranks know, whatever earlier ones left in the store."""
    own, ranks = uuid.uuid4().hex, range(place.world_size)
    store.set(f"here/{place.rank}", own)
    end = time.monotonic() + START_TIMEOUT.total_seconds()
    while time.monotonic() < end:
        if place.rank == 0:
            store.set("present", " ".join(store.get(f"here/{rank}").decode() for rank in ranks))
        # Until all ranks of this start are here, some of the names are of an earlier one.
        present = store.get("present").decode()
        if own in present.split():
            store.set(f"{present}/{place.rank}", "")
            if store.check([f"{present}/{rank}" for rank in ranks]):
                return present
        time.sleep(0.1)
    raise RuntimeError("timed out")


def _exchange(store: dist.Store, place: Place, key: str, value: str) -> list[str]:
    """Every rank's value, in the order of ranks."""
    store.set(f"{key}/{place.rank}", value)
    try:
        return [store.get(f"{key}/{rank}").decode() for rank in range(place.world_size)]
    except RuntimeError as error:
        raise InputError(_why_not_met(place, str(error))) from error


def _gpu_of(local_rank: int) -> int:
    """The index of a process's GPU among those that it sees."""
    count = torch.cuda.device_count()
    if count == 1:
        return 0  # some launchers show each process only its own
    if local_rank >= count:
        raise InputError(
            f"process {local_rank} of this machine has no GPU, torch sees {count}: start as many "
            "processes as GPUs (torchrun: --nproc_per_node), or set CUDA_VISIBLE_DEVICES"
        )
    return local_rank


def _gpu_name() -> str:
    """A name that no other GPU of this machine has."""
    index = torch.cuda.current_device()
    return str(getattr(torch.cuda.get_device_properties(index), "uuid", index))


def _check_one_gpu_each(place: Place, machines: list[str], gpus: list[str]) -> None:
    pairs = list(zip(machines, gpus, strict=True))
    same = [rank for rank, pair in enumerate(pairs) if pair == pairs[place.rank]]
    if len(same) > 1:  # NCCL refuses it in words that few understand
        raise InputError(
            f"ranks {', '.join(map(str, same))} are on one GPU ({gpus[place.rank]}) of machine "
            f"{place.machine}: start one process per GPU, with LOCAL_RANK set (torchrun does)"
        )


@contextmanager
def _bounded(place: Place) -> Iterator[None]:
    """Ends this process if the block, much of it in C++, does not end."""

    def end() -> None:
        sys.stderr.write(
            f"{os.path.basename(sys.argv[0])}: error: rank {place.rank} of {place.world_size} "
            f"waits in vain for the others at {place.meeting_point()}: does another program "
            "answer there, or can the machines not talk (NCCL_DEBUG=INFO says; "
            "NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME choose the network)?\n"
        )
        sys.stderr.flush()
        os._exit(1)  # the main thread waits where no exception reaches it

    timer = threading.Timer(_HANGS_AFTER.total_seconds(), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _minutes() -> str:
    seconds = START_TIMEOUT.total_seconds()
    return f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} s"
