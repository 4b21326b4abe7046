"""Applies each mutation of `mutations.py` alone in a copy of the repository and runs its tests.

    python tests/mutations/run.py [--jobs 2] [--only TEXT ...] [--list]

A mutation that no test notices shows what the tests do not check. The repository is not changed.
A test that fails without the mutation has noticed nothing: it ends the run with an error.
The status is 0 if every mutation was noticed.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "projects/StreamPETR_ViT/streampetr_vit"
LIMIT_S = 600  # a test that hangs has noticed, too


def main() -> None:
    """Parses the command line, runs the mutations and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="copies that are worked on at once")
    parser.add_argument(
        "--only", nargs="+", default=[], help="mutations whose file or text has one"
    )
    parser.add_argument("--list", action="store_true", help="only check that each can be applied")
    args = parser.parse_args()
    chosen = [m for m in MUTATIONS if not args.only or any(text in str(m) for text in args.only)]
    stale = [m for m in chosen if source_of(ROOT, m).read_text().count(m.old) != 1]
    for mutation in stale:
        print(f"stale: {mutation.file} does not have this text once: {mutation.old!r}")
    named = {test for mutation in chosen for test in mutation.tests}
    absent = sorted(t for t in named if not (ROOT / "tests" / t.partition("::")[0]).exists())
    for test in absent:
        print(f"stale: there is no tests/{test}")
    stale += [m for m in chosen if not {*m.tests}.isdisjoint(absent)]
    if args.list or stale:
        sys.exit(1 if stale else 0)
    survivors = run_all(chosen, args.jobs)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutations were noticed")
    sys.exit(1 if survivors else 0)


def source_of(root: Path, mutation: Mutation) -> Path:
    """The file that a mutation changes; recipes are named from the root of the repository."""
    folder = root if mutation.file.startswith("configs/") else root / PACKAGE
    return folder / mutation.file


def run_all(mutations: list[Mutation], jobs: int) -> list[Mutation]:
    """Runs the mutations in several copies side by side and returns those that nobody noticed."""
    waiting: queue.Queue[Mutation] = queue.Queue()
    for mutation in mutations:
        waiting.put(mutation)
    survivors: list[Mutation] = []

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = copy_of_repository(Path(folder) / "copy")
            while True:
                try:
                    mutation = waiting.get_nowait()
                except queue.Empty:
                    return
                start = time.monotonic()
                killer = first_failure(copy, mutation)
                if killer is None:
                    survivors.append(mutation)
                verdict = f"noticed by {killer}" if killer else "SURVIVED"
                seconds = time.monotonic() - start
                change = f"{mutation.old!r} -> {mutation.new!r}"
                print(f"{mutation.file}: {change}: {verdict} ({seconds:.0f} s)", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        for worker in [pool.submit(work) for _ in range(jobs)]:
            worker.result()  # raises its error
    return survivors


def copy_of_repository(target: Path) -> Path:
    """A copy of the files that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def first_failure(copy: Path, mutation: Mutation) -> str | None:
    """The first test that fails with a mutation; None if all pass."""
    source = source_of(copy, mutation)
    original = source.read_text()
    source.write_text(original.replace(mutation.old, mutation.new))
    try:
        killer = failing_test(copy, mutation.tests)
    finally:
        source.write_text(original)
    check_passes(copy, killer)
    return killer


PASSING: set[str] = set()  # tests that pass without a mutation; the copies share it


def check_passes(copy: Path, killer: str | None) -> None:
    """Raises RuntimeError if the test that noticed a mutation fails without it, too."""
    # Without its parameters, whose text may not be a word of a command line.
    test = "" if killer is None else killer.removeprefix("tests/").partition("[")[0]
    if not (copy / "tests" / test.partition("::")[0]).is_file() or test in PASSING:
        return
    if failing_test(copy, (test,)) is not None:
        raise RuntimeError(f"tests/{test} fails without a mutation, too: mend it first")
    PASSING.add(test)


def failing_test(copy: Path, tests: tuple[str, ...]) -> str | None:
    """Runs tests in a copy until one fails."""
    environment = {
        **os.environ,
        # Before the installed package, which is the repository itself.
        "PYTHONPATH": str(copy / "projects/StreamPETR_ViT"),
        "PYTHONDONTWRITEBYTECODE": "1",  # a mutant's bytecode must not outlive it
        "OMP_NUM_THREADS": "1",
        # What a stranger's clone has.
        "STREAMPETR_GOLDEN_DIR": str(copy / "tests/parity/golden"),
    }
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    paths = [f"tests/{test}" for test in tests]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *paths],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return f"a test that ran into the limit of {LIMIT_S} s"
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode != 1 and not failed:  # no test ran: the mutation proves nothing
        raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return failed[0].split(" - ")[0].split(maxsplit=1)[1] if failed else "pytest"


if __name__ == "__main__":
    main()
