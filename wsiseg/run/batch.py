"""Every slide of a run: one that fails is recorded, and the others go on."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from wsiseg.compiling import compiling_told, loading
from wsiseg.compute import SerialExecutor, in_flight, is_alive, open_executor, run
from wsiseg.config import Config
from wsiseg.errors import ClusterError, ConfigError, StoreError, WsisegError
from wsiseg.lock import explained
from wsiseg.model.catalog import SHIPPED
from wsiseg.model.prompt_file import read_prompts
from wsiseg.model.scale import read_scale, settle_scale
from wsiseg.run.events import RunFinished, RunStarted, SlideFinished, SlideStarted
from wsiseg.run.jobs import Job, OutputTree, plan_jobs
from wsiseg.run.log import SLIDE, RunLog, open_log
from wsiseg.run.memory import measure_peak
from wsiseg.run.notifier import Notifier, OnEvent, Progress
from wsiseg.run.records import name_run, write_run, write_summary
from wsiseg.run.slide import SlideResult, annotate_slide, plan_slide
from wsiseg.version import __version__

__all__ = ["annotate"]

_LOG = logging.getLogger(__name__)
_DIED = "a worker process died"
_TABLES_PAUSE = 20  # times as long as writing the tables takes, which grows with the slides
_MAX_SLIDES = 16  # at a time
_BLOCKS_A_SLIDE = 64  # in flight, before another slide is begun beside it


def annotate(
    inputs: str | Path | Iterable[str | Path],
    out: str | Path,
    config: Config | None = None,
    *,
    executor: str = "threads",
    workers: int | None = None,
    nested: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    on_event: OnEvent | None = None,
) -> list[SlideResult]:
    """Annotate slides, folders of slides or manifests; write everything below `out`.

    Finished work is kept and resumed; `overwrite` redoes each given slide. A slide that fails is
    recorded and the rest go on. ``out/runs/RUN.log`` holds all log messages and the tracebacks of
    unexpected errors.

    `progress` is called with (job, step, blocks done, blocks), and with (job, "slides", slides
    done, slides) after each slide; `on_event` with every `wsiseg.run.events.Event`, one at a
    time.

    Returns
    -------
    One `SlideResult` per slide, in input order.

    Raises
    ------
    SlideOpenError
        If an input does not exist, or a folder holds no slide.
    ConfigError
        If `out` is a file, a manifest is malformed, a file is given with several µm/px, or no
        slide could be predicted with these settings: the prompt file is refused, or the tiles do
        not fit the encoder.
    CheckpointError
        If the checkpoint, or the encoder of prompts, cannot be used.
    MissingDependencyError
        If a package for one of ``config.export.formats`` is not installed.
    """
    if Path(out).exists() and not Path(out).is_dir():
        raise ConfigError(f"{out}: is a file; the outputs of a run go into a folder")
    config = settle_scale(config or Config())
    _check_formats(config)
    _check_source(config, dry_run)
    sources = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    jobs = plan_jobs(
        [Path(source) for source in sources], nested=nested, out=Path(out), reserve=not dry_run
    )
    tree = OutputTree(Path(out))
    notifier = Notifier(progress, on_event)
    if dry_run:
        return _plan(jobs, config, notifier)
    with explained(tree.root):
        tree.root.mkdir(parents=True, exist_ok=True)
    run_name = name_run()
    with open_log(tree.log(run_name)) as log, compiling_told():
        _describe_run(log, executor, workers, len(jobs))
        notifier.send(RunStarted(run_name, len(jobs), str(tree.log(run_name))))
        with _Pool(executor, workers) as pool:
            work = partial(_annotate_job, pool=pool, tree=tree, config=config, overwrite=overwrite,
                           notifier=notifier, log=log)  # fmt: skip
            record = _Record(tree, jobs, notifier, log)
            for job in jobs:
                if job.same_as:
                    record.add(_skip(job))
            for result in _run_jobs(pool, work, [job for job in jobs if not job.same_as]):
                record.add(result)
        record.write()
        from wsiseg.qupath import write_scripts  # loaded by now, beside the reading

        write_run(tree, run_name, config, record.results, executor, workers)
        write_scripts(tree.root)
        notifier.send(_sum_up(record.results, notifier))
    return record.results


def _plan(jobs: Sequence[Job], config: Config, notifier: Notifier) -> list[SlideResult]:
    """Report what would be done with each slide, by the same events as doing it."""
    notifier.send(RunStarted("", len(jobs), ""))
    results = []
    for job in jobs:
        result = _skip(job) if job.same_as else _guard(job, partial(plan_slide, config=config))
        results.append(result)
        notifier.send(SlideFinished(result))
    notifier.send(_sum_up(results, notifier))
    return results


def _describe_run(log: RunLog, executor: str, workers: int | None, slides: int) -> None:
    log.note(
        f"wsiseg {__version__}, Python {platform.python_version()}, {platform.platform()}; "
        f"{slides} slide(s), executor {executor}, workers {workers or 'as many as cores'}"
    )


def _sum_up(results: Sequence[SlideResult], notifier: Notifier) -> RunFinished:
    return RunFinished(dict(Counter(result.status for result in results)), notifier.elapsed())


def _check_formats(config: Config) -> None:
    if config.export.formats == ("geojson",):
        return  # it needs no extra package; to check the others loads them
    with loading():
        from wsiseg.export import check_formats
    check_formats(config.export)


def _check_source(config: Config, dry_run: bool) -> None:
    """Refuse a model that no slide could be predicted with, before any slide is tiled.

    A model that ships has nothing that could be missing: it is loaded beside the reading.
    """
    if _ships(config):
        return
    if dry_run:  # needs neither torch nor weights
        if config.predict.prompts is not None:
            read_prompts(config.predict.prompts)
        return
    with loading():
        from wsiseg.predict import check_source
    check_source(config)


def _ships(config: Config) -> bool:
    """Whether the model is one that ships, with the settings that it was made for."""
    settings = config.predict
    if settings.prompts is not None or settings.checkpoint not in SHIPPED:
        return False
    as_made = not settings.encoder_options and settings.context is None
    on_cpu = settings.device in ("auto", "cpu")
    return as_made and on_cpu and config.tile.tile == read_scale(settings).tile


class _Pool:
    """The run's executor, opened anew if it has died."""

    def __init__(self, kind: str, workers: int | None) -> None:
        self._open = partial(open_executor, kind, workers)
        self._lock, self._stack, self._stopped = threading.Lock(), ExitStack(), False
        self.executor = self._stack.enter_context(self._open())
        self.lost = ""
        """Why no new executor could be opened; empty while there is one."""

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    def renew(self, executor: Executor) -> None:
        """Replace `executor` if it is the one in use and takes no more work."""
        with self._lock:
            if executor is not self.executor or self.lost or self._stopped or is_alive(executor):
                return
            # Whatever fails here, the slides get rows that say so, and the tables are written.
            try:
                self._stack.close()
            except Exception as error:  # noqa: BLE001  # as above
                _LOG.debug("the executor that died does not close", exc_info=error)
            try:
                self.executor = self._stack.enter_context(self._open())
            except ClusterError as error:
                self.lost = str(error)
            except Exception as error:  # noqa: BLE001  # as above
                self.lost = f"no executor starts again: {type(error).__name__}: {error}"

    def stop(self) -> None:
        """Begin no more blocks."""
        self._stopped = True
        self.executor.shutdown(wait=False, cancel_futures=True)


class _Record:
    """The results so far, and the tables that hold them."""

    def __init__(
        self, tree: OutputTree, jobs: Sequence[Job], notifier: Notifier, log: RunLog
    ) -> None:
        self._tree, self._jobs = tree, {job.name: job for job in jobs}
        self._notifier, self._log = notifier, log
        self._results: dict[str, SlideResult] = {}
        self._unwritten: list[SlideResult] = []
        self._begun, self._next_write = time.time(), 0.0

    @property
    def results(self) -> list[SlideResult]:
        """Those there are, in input order."""
        return [self._results[name] for name in self._jobs if name in self._results]

    def add(self, result: SlideResult) -> None:
        """Keep a result and report it; write the tables, unless they were written just now."""
        result = replace(result, peak_mb=measure_peak())
        self._results[result.slide] = result
        self._unwritten.append(result)
        started = time.monotonic()
        if started >= self._next_write:
            with suppress(StoreError):  # raised when they are written last
                self.write()
            now = time.monotonic()
            self._next_write = now + _TABLES_PAUSE * (now - started)
        ended = f"{result.slide}: {result.status} after {result.seconds:.1f} s"
        text = "; ".join(filter(None, [ended, result.note, result.error]))
        self._log.note(text, "ERROR" if result.error else "INFO")
        self._notifier.send(SlideFinished(result))
        self._notifier.count(
            self._jobs[result.slide], "slides", len(self._results), len(self._jobs)
        )

    def write(self) -> None:
        """Add what is not in the tables yet: another run may have written newer rows since."""
        order = [result.slide for result in self.results]
        write_summary(self._tree, self._unwritten, order=order, since=self._begun)
        self._unwritten.clear()


def _run_jobs(
    pool: _Pool, work: Callable[[Job], SlideResult], jobs: Sequence[Job]
) -> Iterator[SlideResult]:
    """Yield each job's result as it ends; several slides at a time, so that no worker is idle.

    When a worker process dies, all slides under way fail; each is then done again on its own, and
    only the one that caused it fails again.
    """
    at_once = min(len(jobs), max(1, min(_MAX_SLIDES, in_flight(pool.executor) // _BLOCKS_A_SLIDE)))
    if in_flight(pool.executor) > 1 and len(jobs) > 1:
        at_once = max(2, at_once)
    retry = []
    with SerialExecutor() if at_once == 1 else ThreadPoolExecutor(at_once) as slides:
        try:
            for job, result in run(slides, work, jobs):
                if at_once > 1 and result.error.startswith(_DIED):
                    retry.append(job)
                else:
                    yield result
        except BaseException:  # interrupted: without this, every slide under way would be finished
            pool.stop()
            raise
    yield from map(work, retry)


def _annotate_job(
    job: Job, pool: _Pool, tree: OutputTree, config: Config, overwrite: bool, notifier: Notifier,
    log: RunLog,
) -> SlideResult:  # fmt: skip
    if pool.lost:
        return SlideResult(job.name, str(job.path), "failed", error=f"not begun: {pool.lost}")
    executor = pool.executor
    work = partial(
        annotate_slide, tree=tree, config=config, executor=executor, overwrite=overwrite,
        progress=partial(notifier.count, job), spent=partial(notifier.add_worker_time, job),
    )  # fmt: skip
    notifier.send(SlideStarted(job.name, str(job.path)))
    token = SLIDE.set(job.name)
    try:
        result = _guard(job, work, log)
    finally:
        SLIDE.reset(token)
    if result.status == "failed":
        pool.renew(executor)
    return result


def _guard(job: Job, work: Callable[[Job], SlideResult], log: RunLog | None = None) -> SlideResult:
    """Call `work`; if this slide fails, its result says so and the run goes on."""
    started = time.perf_counter()
    try:
        return work(job)
    except WsisegError as error:
        message = str(error)
    except BrokenExecutor as error:
        message = f"{_DIED} (out of memory, or a crash in a reader): {error}"
    except Exception as error:  # noqa: BLE001  # whatever one slide does, the others go on
        message = f"{type(error).__name__}: {error}"
        _LOG.debug("%s: %s", job.path, message, exc_info=error)
        if log is not None:
            log.note(f"{job.path}: {message}", "ERROR", error)
    return SlideResult(
        job.name, str(job.path), "failed", seconds=time.perf_counter() - started, error=message
    )


def _skip(job: Job) -> SlideResult:
    """Return the result of a path to a file that another job does."""
    return SlideResult(job.name, str(job.path), "same file", note=f"the same file as {job.same_as}")
