"""Who looks at frames: this process alone, more of this computer, or a Dask cluster."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# What computes the numbers: other versions of it may round differently.
MUST_AGREE = ("lamella", "numpy", "scipy", "numba")
CONNECT_S = 10.0
AHEAD = 2  # blocks for each worker that are under way, or wait to be taken


class WorkersRefused(ValueError):
    """Workers cannot be used; the message says what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Processes that look at frames.

    Parameters
    ----------
    executor
        Where they are asked; None for this process alone.
    size
        How many there are.
    """

    executor: Executor | None = None
    size: int = 1

    def in_order(self, look: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Do tasks side by side, and yield what comes of them in their own order.

        Few are under way at a time, so that no more is held than they need.
        """
        if self.executor is None:
            for task in tasks:
                yield look(*task)
            return
        waiting: deque[Future[Any]] = deque()
        try:
            for task in tasks:
                waiting.append(self.executor.submit(look, *task))
                if len(waiting) > AHEAD * self.size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenExecutor as error:
            raise WorkersRefused(
                f"a worker process ended ({error}); fewer workers need less memory"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


ALONE = Team()


@contextmanager
def open_team(workers: int = 1, cluster: str | None = None) -> Iterator[Team]:
    """Start processes of this computer, or turn to a Dask cluster.

    Parameters
    ----------
    workers
        Processes; 1 for this one alone.
    cluster
        Address of a Dask scheduler, such as ``tcp://lab:8786``.

    Raises
    ------
    WorkersRefused
        There is no such cluster, or its workers have other versions than this process.
    """
    if cluster is not None:
        with _on_cluster(cluster) as team:
            yield team
    elif workers == 1:
        yield ALONE
    else:
        # "spawn" as on Windows: a process that was forked would share open HDF5 files.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            yield Team(executor=pool, size=workers)


@contextmanager
def _on_cluster(address: str) -> Iterator[Team]:
    try:
        distributed = import_module("distributed")
    except ImportError:
        raise WorkersRefused(
            "Dask's distributed is not installed; pip install 'lamella[cluster]' brings it"
        ) from None
    try:
        client: Any = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise WorkersRefused(
            f"no Dask scheduler answers at {address} ({error}); `dask scheduler` prints its address"
        ) from error
    with client:
        found: dict[str, dict[str, str]] = client.run(_versions)
        if not found:
            raise WorkersRefused(
                f"the cluster at {address} has no workers; `dask worker {address}` starts one"
            )
        for worker, theirs in found.items():
            if theirs != _versions():
                raise WorkersRefused(
                    f"worker {worker} has {_listed(theirs)}, and this computer"
                    f" {_listed(_versions())}: install the same on both"
                )
        with client.get_executor(pure=False) as executor:
            yield Team(executor=executor, size=sum(client.nthreads().values()))


def _versions() -> dict[str, str]:
    """Return what this process computes with."""
    found = {}
    for name in MUST_AGREE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
