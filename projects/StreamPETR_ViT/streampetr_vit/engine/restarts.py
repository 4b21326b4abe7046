"""Restarts by torchrun, which go on without --resume.

`torchrun --max-restarts` runs the same command again, on all machines, and --resume may not be in
it. A run notes in its folder which agents of torchrun have started it. If one of them starts it
again, it goes on from its last checkpoint. An earlier run in the same folder is none of theirs, and
is set aside also if the first try failed before it came so far. The count of restarts that torchrun
gives would not do: a machine whose processes are started again because another one failed counts 0.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from streampetr_vit.checkpoint.manifest import MANIFEST
from streampetr_vit.engine.agreement import from_all_ranks, on_rank_0
from streampetr_vit.files import replacing

logger = logging.getLogger(__name__)

AGENTS = "torchrun_agents.txt"


def is_restart(folder: str) -> bool:
    """Whether the agents that started this job have trained in a folder before.

    To be called on all ranks; they get the same answer.

    Args:
        folder: train.output_dir.
    """
    agents = _agents()

    def has_trained() -> bool:
        note = Path(folder, AGENTS)
        known = note.read_text().splitlines() if note.is_file() else []
        names = (Path(folder, name) for name in ("last_checkpoint", MANIFEST))
        return not agents.isdisjoint(known) and any(path.is_file() for path in names)

    if not on_rank_0(has_trained):
        return False
    logger.warning("torchrun has restarted this job: it goes on from its last checkpoint")
    return True


def note_start(folder: str) -> None:
    """Notes the agents of this job, on all ranks and after the records of others are set aside."""
    agents = _agents()

    def write() -> None:
        with replacing(Path(folder, AGENTS)) as temporary:
            temporary.write_text("".join(f"{agent}\n" for agent in sorted(agents)))

    if agents:
        on_rank_0(write)


def agent_of(environment: Mapping[str, str]) -> str:
    """A name that one launch of torchrun has on one machine; empty without torchrun.

    Args:
        environment: the variables of the process.
    """
    file = environment.get("TORCHELASTIC_ERROR_FILE", "")
    if not file:
        return ""
    # FOLDER/attempt_N/RANK/error.json, in a folder that an agent makes for itself.
    return f"{socket.gethostname()} {Path(file).parents[2]}"


def _agents() -> set[str]:
    """The agents that started the processes of this job."""
    return {agent for agent in from_all_ranks(agent_of(os.environ)) if agent}
