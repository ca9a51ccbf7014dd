"""Executors on dask: local workers, a running scheduler, or the jobs of a SLURM queue.

The only file that imports dask. The commands show its log line "dask: dashboard at ...".
"""

from __future__ import annotations

import importlib.util
import logging
import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import uuid4

from wsiseg.compute.flow import Step
from wsiseg.compute.messages import LogLevels, Message, forward_logs, log_message
from wsiseg.config import ClusterConfig, load_config
from wsiseg.errors import ClusterError, ConfigError, MissingDependencyError
from wsiseg.version import __version__

if TYPE_CHECKING:
    import distributed

__all__ = ["DaskExecutor", "open_cluster"]

_LOG = logging.getLogger(__name__)
_R = TypeVar("_R")

_RETRIES = 1  # a file server may hiccup; a block that fails twice has failed
_REFRESH_S = 10.0  # maximum age of the cached number of workers
_REPLY_S = 60.0  # a scheduler that takes longer to reply counts as lost
_RESULT_S = 600.0  # long enough for dask to recompute a result that left with its worker
_MIN_IN_FLIGHT = 8  # also while no worker has joined yet
_GPU_POLL_S = 10.0  # between checks that a GPU worker is left
_GPU_WAIT_S = 60.0  # longer than it takes to restart a worker that died

_CLOSED = ("closing", "closed")
"""Client states in which it accepts no calls and runs no callbacks."""

_TOPIC = "wsiseg-messages"

_SETTINGS = {
    "distributed.worker.profile.enabled": False,  # samples every stack 100 times a second
    "distributed.admin.tick.interval": "1s",  # the event loop's lag, by default 50 times a second
    "distributed.scheduler.work-stealing-interval": "100ms",  # idle workers do not wait a second
}
"""dask settings of the workers that we start; with its defaults, monitoring takes 6 % of their
time."""

_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(2**26), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""The values that glibc arrives at by itself. With dask's, every freed array goes back to the
system at once and its pages are faulted in again, which makes the model half as slow again."""


@contextmanager
def open_cluster(kind: str, workers: int) -> Iterator[DaskExecutor]:
    """Open an executor on dask: `dask`, a scheduler's address, or a YAML file of `ClusterConfig`.

    Raises
    ------
    ClusterError
        If no scheduler answers, or no worker joins.
    ConfigError
        If the YAML file is invalid.
    MissingDependencyError
        If dask (or, for a job queue, dask-jobqueue) is not installed.
    """
    with _translate_missing(kind):
        import distributed  # noqa: F401  # here, so that its absence is reported in one place
    if kind == "dask":
        with _open_local(workers) as cluster, _connect(cluster) as client:
            _log_workers_messages(client)
            yield _open_executor(client, min_in_flight=2 * workers)
    elif "://" in kind:
        with _connect(kind) as client:
            yield _open_executor(client)
    else:
        config = load_config(kind, ClusterConfig)
        with _open_jobs(kind, config) as cluster, _connect(cluster) as client:
            # Enough for all jobs: dask starts only as many as the queued blocks can use.
            min_in_flight = 2 * config.maximum_jobs * _threads_per_job(config)
            executor = _open_executor(client, min_in_flight)
            _await_worker(executor, kind, config)
            yield executor


class _Task(NamedTuple):
    """A call, and the future handed to the caller."""

    call: Callable[[], Any]
    name: str
    outcome: Future[Any]
    returns: bool
    """Whether `outcome` carries the return value (else None)."""
    gpu: bool
    """Whether it needs a GPU to itself."""


class DaskExecutor(Executor):
    """Runs calls and blocks on a dask cluster, through a connected client."""

    def __init__(self, client: distributed.Client, min_in_flight: int = _MIN_IN_FLIGHT) -> None:
        self._client, self._min_in_flight, self._open = client, min_in_flight, True
        self._address = client.scheduler.address  # a closed client has none
        self._pending: dict[Any, _Task] = {}
        """By dask's futures; whoever removes a task sets its outcome."""
        self._lock = threading.Lock()
        """Held while `_pending` changes, and while a task is sent."""
        self._watching_gpus, self._stopped = False, threading.Event()
        self._capacity, self._has_gpu, self._refreshed = min_in_flight, False, -_REFRESH_S

    @property
    def capacity(self) -> int:
        """Twice the workers' threads, at most some seconds old: workers come and go."""
        if time.monotonic() - self._refreshed > _REFRESH_S:
            self._refresh_workers()
        return self._capacity

    def submit(self, fn: Callable[..., _R], /, *args: object, **kwargs: object) -> Future[_R]:
        """Call `fn` on a worker; errors of dask itself are raised as `ClusterError`."""
        return self._submit(partial(fn, *args, **kwargs), "call", returns=True)

    def submit_block(self, step: Step, block: int) -> Future[None]:
        """Compute a block; its return value stays on the worker.

        If `step` wants a GPU and any worker offers one (``dask worker --resources GPU=1``), the
        block has a ``GPU`` resource to itself. If the last such worker leaves and none joins within
        a minute, the block goes to any worker, where its device setting decides whether it is
        computed or fails.
        """
        return self._submit(step.task(block), step.name, gpu=step.gpu and self._has_gpu)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; with `cancel_futures`, cancel those that have not started."""
        with self._lock:
            self._open = False
            futures = list(self._pending)
        self._stopped.set()
        if cancel_futures:
            self._cancel(futures)

    def is_alive(self) -> bool:
        """Whether the scheduler answers."""
        return self._client.status == "running" and self._query_workers() is not None

    def _submit(
        self, call: Callable[[], Any], name: str, *, returns: bool = False, gpu: bool = False
    ) -> Future[Any]:
        if not self._open:
            raise RuntimeError("the executor was shut down")
        outcome: Future[Any] = Future()
        outcome.set_running_or_notify_cancel()  # not cancellable: waiters wait until it has ended
        if self._client.status != "running":  # it would queue the call until it reconnects
            outcome.set_exception(self._lost())
            return outcome
        self._send(_Task(call, name, outcome, returns, gpu))
        if gpu:
            with self._lock:
                watching, self._watching_gpus = self._watching_gpus, True
            if not watching:
                threading.Thread(target=self._watch_gpus, daemon=True).start()
        return outcome

    def _send(self, task: _Task) -> None:
        """Submit a task to dask; if that is impossible, set its outcome."""
        with self._lock:
            if not self._open:
                task.outcome.set_exception(RuntimeError("the executor was shut down"))
                return
            try:
                future = self._submit_to_dask(task)
            except Exception as error:  # noqa: BLE001  # reported as if the call had failed
                closed = self._client.status in _CLOSED
                task.outcome.set_exception(self._lost() if closed else error)
                return
            self._pending[future] = task
        future.add_done_callback(self._finish)
        # A client that was closed meanwhile may never run the callback.
        if self._client.status in _CLOSED and self._take(future):
            task.outcome.set_exception(self._lost())

    def _submit_to_dask(self, task: _Task) -> Any:
        # Named after the step, so that the dashboard shows one bar per step.
        return self._client.submit(
            _call, __version__, task.call,
            key=f"{task.name}-{uuid4()}", pure=False, retries=_RETRIES,
            resources={"GPU": 1} if task.gpu else None,
        )  # fmt: skip

    def _take(self, future: Any) -> _Task | None:
        """Remove a task; None if another thread has."""
        with self._lock:
            return self._pending.pop(future, None)

    def _cancel(self, futures: list[Any]) -> None:
        from distributed.client import ClosedClientError

        with suppress(RuntimeError, ClosedClientError):  # a closed client has cancelled them
            self._client.cancel(futures)

    def _watch_gpus(self) -> None:
        """Resubmit blocks that wait for a GPU to any worker, once no GPU has been left for long."""
        last_ok = time.monotonic()
        while not self._stopped.wait(_GPU_POLL_S) and self._client.status not in _CLOSED:
            self._refresh_workers()
            with self._lock:
                needed = any(task.gpu for task in self._pending.values())
            if self._has_gpu or not needed:
                last_ok = time.monotonic()
            elif time.monotonic() - last_ok >= _GPU_WAIT_S:
                _LOG.warning("dask: no worker with a GPU is left; its blocks go to the others")
                self._give_up_gpus()

    def _give_up_gpus(self) -> None:
        with self._lock:  # a task that ends now is finished before this, or is left to `_finish`
            tasks = self._pending
            waiting = [f for f, task in tasks.items() if task.gpu and f.status == "pending"]
            moved = [tasks.pop(future) for future in waiting]
        self._cancel(waiting)
        for task in moved:
            self._send(task._replace(gpu=False))

    def _finish(self, future: Any) -> None:
        """Set the outcome of the task of a dask future that ended."""
        task = self._take(future)
        if task is None:
            return  # it was sent to another worker
        try:
            task.outcome.set_result(self._result(future, task.returns))
        except BaseException as error:  # noqa: BLE001  # any error must reach the caller
            task.outcome.set_exception(error)

    def _result(self, future: Any, returns: bool) -> Any:
        """Return or raise what a finished future holds; its status may change at any moment."""
        from distributed import KilledWorker

        status = future.status
        if status == "cancelled":
            raise self._lost()
        if status == "error":
            error = future.exception(timeout=_RESULT_S)
            if isinstance(error, KilledWorker):
                raise ClusterError(f"workers die of this block: {error}") from error
            raise self._lost() if error is None else error  # None: the scheduler was lost since
        if not returns:  # done, even if its worker has left since, and its return value with it
            return None
        try:
            return future.result(timeout=_RESULT_S)
        except (OSError, CancelledError) as error:
            if future.status == "error":  # it was recomputed, and failed
                raise
            raise self._lost() from error

    def _lost(self) -> ClusterError:
        return ClusterError(
            f"the dask scheduler at {self._address} was lost; finished blocks are kept: start it "
            f"again and run the same command"
        )

    def _query_workers(self) -> list[dict[str, Any]] | None:
        """Return the scheduler's description of each worker; None if it does not answer.

        Asked for directly: every two seconds the client overwrites its own copy by a shorter one.
        """
        # The last two are raised if the client is closed meanwhile.
        with suppress(OSError, TimeoutError, RuntimeError, AttributeError):
            identity = self._client.scheduler.identity
            return list(self._client.sync(identity, callback_timeout=_REPLY_S)["workers"].values())
        return None

    def _refresh_workers(self) -> None:
        self._refreshed = time.monotonic()
        if (workers := self._query_workers()) is None:  # the next call reports a lost scheduler
            return
        threads = sum(worker["nthreads"] for worker in workers)
        self._capacity = max(2 * threads, self._min_in_flight)
        self._has_gpu = any(worker["resources"].get("GPU") for worker in workers)


def _open_executor(client: distributed.Client, min_in_flight: int = _MIN_IN_FLIGHT) -> DaskExecutor:
    _LOG.info("dask: dashboard at %s", client.dashboard_link)
    return DaskExecutor(client, min_in_flight)


def _call(version: str, call: Callable[[], _R]) -> _R:
    """Make the call, on a worker; `version` is the client's."""
    if version != __version__:
        raise ClusterError(
            f"a worker on {platform.node()} has wsiseg {__version__}, this is {version}; install "
            f"the same version there: a slide is never made by two"
        )
    return call()


@contextmanager
def _translate_missing(kind: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"executor {kind!r} needs dask: pip install 'wsiseg[cluster]'"
        ) from error


def _open_local(workers: int) -> Any:
    import dask
    from distributed import LocalCluster

    malloc = {f"distributed.nanny.pre-spawn-environ.{name}": size for name, size in _MALLOC.items()}
    # On loopback and any free port. Without bokeh, the page would only say that it is missing.
    has_dashboard = importlib.util.find_spec("bokeh") is not None
    with dask.config.set(_SETTINGS | malloc):
        return LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1",
            memory_limit=0,  # no limit: near dask's own, it pauses or kills workers
            scheduler_kwargs={"dashboard": has_dashboard, "dashboard_address": "127.0.0.1:0"},
        )  # fmt: skip


@contextmanager
def _connect(address: Any) -> Iterator[distributed.Client]:
    """Open a client of an address or a cluster."""
    from distributed import Client

    try:
        # Not as the default client, which only the thread that opened it can close.
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:  # ValueError: no such protocol
        raise ClusterError(
            f"{address}: no dask scheduler answers there ({error}); start one with `dask scheduler`"
        ) from error
    with closing(client):
        yield client


def _log_workers_messages(client: distributed.Client) -> None:
    """Log the messages of our own workers in this process: they have no terminal of their own."""
    from distributed import WorkerPlugin

    class ForwardLogs(WorkerPlugin):  # type: ignore[misc]  # dask has no types
        def __init__(self) -> None:
            self.levels = LogLevels.current()

        def setup(self, worker: Any) -> None:
            forward_logs(lambda message: worker.log_event(_TOPIC, list(message)), self.levels)

    client.subscribe_topic(_TOPIC, lambda event: log_message(Message(*event[1])))
    client.register_plugin(ForwardLogs(), name=_TOPIC)


@contextmanager
def _open_jobs(source: str, config: ClusterConfig) -> Iterator[Any]:
    with _translate_missing(source):
        from dask_jobqueue import SLURMCluster
    import dask

    try:
        with dask.config.set(_SETTINGS):
            cluster = SLURMCluster(**config.job | {"job_script_prologue": _prologue(config)})
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: job: {error}") from error
    with cluster:
        cluster.adapt(minimum_jobs=config.minimum_jobs, maximum_jobs=config.maximum_jobs)
        yield cluster


def _prologue(config: ClusterConfig) -> list[str]:
    """Return the job script's lines before the worker starts; the user's or site's win, as last."""
    import dask

    custom = config.job.get("job_script_prologue")
    custom = custom or dask.config.get("jobqueue.slurm.job-script-prologue", None) or ()
    settings = {
        f"DASK_{name.replace('.', '__').replace('-', '_').upper()}": value
        for name, value in _SETTINGS.items()
    }
    ours = [f"export {name}={value}" for name, value in (settings | _MALLOC).items()]
    return [*ours, *custom]


def _threads_per_job(config: ClusterConfig) -> int:
    """Return how many blocks a job computes at once: its processes share its cores."""
    processes = int(config.job.get("processes") or 1)
    return processes * max(1, int(config.job.get("cores") or 1) // processes)


def _await_worker(executor: DaskExecutor, source: str, config: ClusterConfig) -> None:
    try:
        executor.submit(int).result(timeout=config.wait_s)
    except TimeoutError as error:
        raise ClusterError(
            f"{source}: no worker joined within {config.wait_s:g} s; check the state of the jobs "
            f"with `squeue`, or raise wait_s"
        ) from error
