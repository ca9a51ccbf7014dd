"""Executors on dask: workers on this machine, at a scheduler's address, or as jobs of a queue.

The only file that knows dask. Its log line "dask: dashboard at ..." is shown by the commands.
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
from wsiseg.compute.messages import Levels, Said, hear, tell
from wsiseg.config import ClusterConfig, load_config
from wsiseg.errors import ClusterError, ConfigError, MissingDependencyError
from wsiseg.version import __version__

if TYPE_CHECKING:
    import distributed

__all__ = ["DaskExecutor", "open_cluster"]

_LOG = logging.getLogger(__name__)
_R = TypeVar("_R")

_RETRIES = 1  # a file server may hiccup; a block that fails twice fails
_REFRESH_S = 10.0  # how old the known number of workers may be
_ANSWER_S = 60.0  # a scheduler that takes longer over a greeting is taken for lost
_RESULT_S = 600.0  # what a worker took along when it left is computed anew meanwhile
_FEWEST = 8  # blocks in flight while no worker has come yet
_LOOK_S = 10.0  # between looks whether there still are workers with a GPU
_GPU_WAIT_S = 60.0  # a worker that died is started again within less

_GONE = ("closing", "closed")
"""A client's states in which it takes and tells nothing any more."""

_TOPIC = "wsiseg-messages"

_SETTINGS = {
    "distributed.worker.profile.enabled": False,  # reads every stack 100 times a second
    "distributed.admin.tick.interval": "1s",  # not 50 times a second, to see whether it comes late
    "distributed.scheduler.work-stealing-interval": "100ms",  # an idle worker waits no second
}
"""dask's own, for workers that we start: with its defaults, watching costs 6 % of their time."""

_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(2**26), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""What glibc settles at by itself; dask would have it give every array back to the system at once,
and its pages be fetched anew: half as much again for the model."""


@contextmanager
def open_cluster(kind: str, workers: int) -> Iterator[DaskExecutor]:
    """An executor on dask: `dask`, a scheduler's address, or a YAML file of `ClusterConfig`.

    Raises
    ------
    ClusterError
        If no scheduler answers, or no worker comes.
    ConfigError
        If the YAML file is wrong.
    MissingDependencyError
        If dask (or, for a job queue, dask-jobqueue) is not installed.
    """
    with _translate_missing(kind):
        import distributed  # noqa: F401  # looked for here, so that its absence is told once
    if kind == "dask":
        with _open_local(workers) as cluster, _connect(cluster) as client:
            _hear_workers(client)
            yield _join(client, fewest=2 * workers)
    elif "://" in kind:
        with _connect(kind) as client:
            yield _join(client)
    else:
        config = load_config(kind, ClusterConfig)
        with _open_jobs(kind, config) as cluster, _connect(cluster) as client:
            # In flight is what the queue may give: dask asks for as many jobs as blocks wait for.
            executor = _join(client, fewest=2 * config.maximum_jobs * _threads(config))
            _await_worker(executor, kind, config)
            yield executor


class _Task(NamedTuple):
    """One call, and who waits for it."""

    call: Callable[[], Any]
    name: str
    outcome: Future[Any]
    result: bool
    """Whether what it returns is wanted."""
    gpu: bool
    """Whether it has a GPU to itself."""


class DaskExecutor(Executor):
    """Calls and blocks on a dask cluster, through a connected client."""

    def __init__(self, client: distributed.Client, fewest: int = _FEWEST) -> None:
        self._client, self._fewest, self._open = client, fewest, True
        self._address = client.scheduler.address  # a client that was closed has none
        self._under_way: dict[Any, _Task] = {}
        """By dask's futures; who takes one out sees to its outcome."""
        self._changing = threading.Lock()
        """Held while these change, or are sent."""
        self._watched, self._ended = False, threading.Event()
        self._capacity, self._has_gpu, self._asked = fewest, False, -_REFRESH_S

    @property
    def capacity(self) -> int:
        """Twice the workers' threads, as of some seconds ago: workers come and go."""
        if time.monotonic() - self._asked > _REFRESH_S:
            self._ask_workers()
        return self._capacity

    def submit(self, fn: Callable[..., _R], /, *args: object, **kwargs: object) -> Future[_R]:
        """Call `fn` on a worker; the future carries its result, and ours for dask's own errors."""
        return self._submit(partial(fn, *args, **kwargs), "call", result=True)

    def submit_block(self, step: Step, block: int) -> Future[None]:
        """Do a block; its return value stays where it is.

        It has one of the worker's ``GPU`` resources to itself where `step` wants one and any worker
        has any (``dask worker --resources GPU=1``). If the last of those leaves and none comes for
        a minute, the block goes to any worker: what its settings say of the device then decides
        whether it is done there or fails.
        """
        return self._submit(step.task(block), step.name, gpu=step.gpu and self._has_gpu)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `cancel_futures`, those that did not begin never will."""
        with self._changing:
            self._open = False
            futures = list(self._under_way)
        self._ended.set()
        if cancel_futures:
            self._cancel(futures)

    def is_alive(self) -> bool:
        """Whether the scheduler answers."""
        return self._client.status == "running" and self._greet() is not None

    def _submit(
        self, call: Callable[[], Any], name: str, *, result: bool = False, gpu: bool = False
    ) -> Future[Any]:
        if not self._open:
            raise RuntimeError("the executor was shut down")
        outcome: Future[Any] = Future()
        outcome.set_running_or_notify_cancel()  # who waits for it waits until it has ended
        if self._client.status != "running":  # it would queue the call until it is reconnected
            outcome.set_exception(self._lost())
            return outcome
        self._send(_Task(call, name, outcome, result, gpu))
        if gpu:
            with self._changing:
                begun, self._watched = self._watched, True
            if not begun:
                threading.Thread(target=self._watch_gpus, daemon=True).start()
        return outcome

    def _send(self, task: _Task) -> None:
        """Have a task done; if its outcome is not of dask's making, set it."""
        with self._changing:
            if not self._open:
                task.outcome.set_exception(RuntimeError("the executor was shut down"))
                return
            try:
                future = self._submit_to_dask(task)
            except Exception as error:  # noqa: BLE001  # as that of a call that fails
                gone = self._client.status in _GONE
                task.outcome.set_exception(self._lost() if gone else error)
                return
            self._under_way[future] = task
        future.add_done_callback(self._pass_on)
        if self._client.status in _GONE and self._take(future):  # nobody may call back any more
            task.outcome.set_exception(self._lost())

    def _submit_to_dask(self, task: _Task) -> Any:
        # Named after the step, so that the dashboard shows one bar a step.
        return self._client.submit(
            _do, __version__, task.call,
            key=f"{task.name}-{uuid4()}", pure=False, retries=_RETRIES,
            resources={"GPU": 1} if task.gpu else None,
        )  # fmt: skip

    def _take(self, future: Any) -> _Task | None:
        with self._changing:
            return self._under_way.pop(future, None)

    def _cancel(self, futures: list[Any]) -> None:
        from distributed.client import ClosedClientError

        with suppress(RuntimeError, ClosedClientError):  # a closed client has cancelled them
            self._client.cancel(futures)

    def _watch_gpus(self) -> None:
        """Send what waits for a GPU elsewhere, once there has been none for long."""
        seen = time.monotonic()
        while not self._ended.wait(_LOOK_S) and self._client.status not in _GONE:
            self._ask_workers()
            with self._changing:
                wanted = any(task.gpu for task in self._under_way.values())
            if self._has_gpu or not wanted:
                seen = time.monotonic()
            elif time.monotonic() - seen >= _GPU_WAIT_S:
                _LOG.warning("dask: no worker with a GPU is left; its blocks go to the others")
                self._leave_gpus()

    def _leave_gpus(self) -> None:
        with self._changing:  # what is done at this moment is passed on before or not at all
            tasks = self._under_way
            waiting = [f for f, task in tasks.items() if task.gpu and f.status == "pending"]
            moved = [tasks.pop(future) for future in waiting]
        self._cancel(waiting)
        for task in moved:
            self._send(task._replace(gpu=False))

    def _pass_on(self, future: Any) -> None:
        task = self._take(future)
        if task is None:
            return  # it was sent elsewhere
        try:
            task.outcome.set_result(self._fetch(future, task.result))
        except BaseException as error:  # noqa: BLE001  # who waits must learn of it, whatever it is
            task.outcome.set_exception(error)

    def _fetch(self, future: Any, result: bool) -> Any:
        """What a future that ended comes to; its status may change at any moment."""
        from distributed import KilledWorker

        status = future.status
        if status == "cancelled":
            raise self._lost()
        if status == "error":
            error = future.exception(timeout=_RESULT_S)
            if isinstance(error, KilledWorker):
                raise ClusterError(f"workers die of this block: {error}") from error
            raise self._lost() if error is None else error  # None: and the scheduler lost since
        if not result:  # done, even if its worker has left since and taken what it returned along
            return None
        try:
            return future.result(timeout=_RESULT_S)
        except (OSError, CancelledError) as error:
            if future.status == "error":  # computed anew, it failed
                raise
            raise self._lost() from error

    def _lost(self) -> ClusterError:
        return ClusterError(
            f"the dask scheduler at {self._address} was lost; finished blocks are kept: start it "
            f"again and run the same command"
        )

    def _greet(self) -> dict[str, Any] | None:
        """What the scheduler knows of its workers; None if it does not answer.

        Asked directly: what the client keeps of it, it replaces by less every two seconds.
        """
        # The last two, where the client is closed meanwhile.
        with suppress(OSError, TimeoutError, RuntimeError, AttributeError):
            identity = self._client.scheduler.identity
            return dict(self._client.sync(identity, callback_timeout=_ANSWER_S)["workers"])
        return None

    def _ask_workers(self) -> None:
        self._asked = time.monotonic()
        if (told := self._greet()) is None:  # a lost scheduler is told by the next call
            return
        workers = told.values()
        threads = sum(worker["nthreads"] for worker in workers)
        self._capacity = max(2 * threads, self._fewest)
        self._has_gpu = any(worker["resources"].get("GPU") for worker in workers)


def _join(client: distributed.Client, fewest: int = _FEWEST) -> DaskExecutor:
    _LOG.info("dask: dashboard at %s", client.dashboard_link)
    return DaskExecutor(client, fewest)


def _do(version: str, call: Callable[[], _R]) -> _R:
    """Make the call, on a worker of the client's `version`."""
    if version != __version__:
        raise ClusterError(
            f"a worker on {platform.node()} has wsiseg {__version__}, this is {version}; install "
            f"the same there: one version makes a slide"
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
    # Loopback, a port of its own; without bokeh the page would only say that it is missing.
    shown = importlib.util.find_spec("bokeh") is not None
    with dask.config.set(_SETTINGS | malloc):
        return LocalCluster(
            n_workers=workers, threads_per_worker=1, host="127.0.0.1",
            memory_limit=0,  # none: dask's would be a share at which it stops or kills a worker
            scheduler_kwargs={"dashboard": shown, "dashboard_address": "127.0.0.1:0"},
        )  # fmt: skip


@contextmanager
def _connect(address: Any) -> Iterator[distributed.Client]:
    """A client of an address or a cluster."""
    from distributed import Client

    try:
        # Not as the default client, which only the thread that opened it could close.
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:  # ValueError: no such protocol
        raise ClusterError(
            f"{address}: no dask scheduler answers there ({error}); start one with `dask scheduler`"
        ) from error
    with closing(client):
        yield client


def _hear_workers(client: distributed.Client) -> None:
    """Have what our own workers say told here: they have no terminal of their own."""
    from distributed import WorkerPlugin

    class Telling(WorkerPlugin):  # type: ignore[misc]  # dask has no types
        def __init__(self) -> None:
            self.levels = Levels.here()

        def setup(self, worker: Any) -> None:
            tell(lambda said: worker.log_event(_TOPIC, list(said)), self.levels)

    client.subscribe_topic(_TOPIC, lambda event: hear(Said(*event[1])))
    client.register_plugin(Telling(), name=_TOPIC)


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
    """Lines of the job script before the worker's, the user's or site's last: they win."""
    import dask

    given = config.job.get("job_script_prologue")
    given = given or dask.config.get("jobqueue.slurm.job-script-prologue", None) or ()
    settings = {
        f"DASK_{name.replace('.', '__').replace('-', '_').upper()}": value
        for name, value in _SETTINGS.items()
    }
    ours = [f"export {name}={value}" for name, value in (settings | _MALLOC).items()]
    return [*ours, *given]


def _threads(config: ClusterConfig) -> int:
    """Blocks that one job does at once: dask-jobqueue shares its cores out among its processes."""
    processes = int(config.job.get("processes") or 1)
    return processes * max(1, int(config.job.get("cores") or 1) // processes)


def _await_worker(executor: DaskExecutor, source: str, config: ClusterConfig) -> None:
    try:
        executor.submit(int).result(timeout=config.wait_s)
    except TimeoutError as error:
        raise ClusterError(
            f"{source}: no worker came within {config.wait_s:g} s; see the state of the jobs in "
            f"`squeue`, or raise wait_s"
        ) from error
