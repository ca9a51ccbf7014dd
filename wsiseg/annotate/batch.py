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

from wsiseg.annotate.events import RunFinished, RunStarted, SlideFinished, SlideStarted
from wsiseg.annotate.jobs import Job, OutputTree, plan_jobs
from wsiseg.annotate.memory import measure_peak
from wsiseg.annotate.records import name_run, write_run, write_summary
from wsiseg.annotate.run_log import SLIDE, RunLog, open_log
from wsiseg.annotate.slide import SlideResult, annotate_slide, plan_slide
from wsiseg.annotate.teller import OnEvent, Progress, Teller
from wsiseg.compiling import compiling_told, loading
from wsiseg.compute import SerialExecutor, in_flight, is_alive, open_executor, run
from wsiseg.config import Config
from wsiseg.errors import ClusterError, ConfigError, StoreError, WsisegError
from wsiseg.lock import explained
from wsiseg.model.catalog import SHIPPED
from wsiseg.model.prompt_file import read_prompts
from wsiseg.model.scale import read_scale, settle_scale

__all__ = ["annotate"]

_LOG = logging.getLogger(__name__)
_DIED = "a worker process died"
_TABLES_SHARE = 20  # the tables of a thousand slides take long: write them a twentieth of the time
_MOST_SLIDES = 16
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
    recorded and the rest go on. What was said meanwhile, and the traceback of what nobody expected,
    is in ``out/runs/RUN.log``.

    `progress` is called with (job, step, blocks done, blocks), and with (job, "slides", slides
    done, slides) after each slide; `on_event` with every `wsiseg.annotate.events.Event`, one at a
    time.

    Returns
    -------
    One `SlideResult` a slide, in input order.

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
    many = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    jobs = plan_jobs([Path(one) for one in many], nested=nested, out=Path(out))
    tree = OutputTree(Path(out))
    tell = Teller(progress, on_event)
    if dry_run:
        return _plan(jobs, config, tell)
    with explained(tree.root):
        tree.root.mkdir(parents=True, exist_ok=True)
    run_name = name_run()
    with open_log(tree.log(run_name)) as log, compiling_told():
        _describe_run(log, executor, workers, len(jobs))
        tell.event(RunStarted(run_name, len(jobs), str(tree.log(run_name))))
        with _Pool(executor, workers) as pool:
            work = partial(_annotate_job, pool=pool, tree=tree, config=config, overwrite=overwrite,
                           tell=tell, log=log)  # fmt: skip
            record = _Record(tree, jobs, tell, log)
            for job in jobs:
                if job.same_as:
                    record.add(_point(job))
            for result in _run_jobs(pool, work, [job for job in jobs if not job.same_as]):
                record.add(result)
        record.write()
        from wsiseg.qupath import write_scripts  # loaded by now, beside the reading

        write_run(tree, run_name, config, record.results, executor, workers)
        write_scripts(tree.root)
        tell.event(_sum_up(record.results, tell))
    return record.results


def _plan(jobs: Sequence[Job], config: Config, tell: Teller) -> list[SlideResult]:
    """What would be done with each slide, told as if it were."""
    tell.event(RunStarted("", len(jobs), ""))
    results = []
    for job in jobs:
        found = _point(job) if job.same_as else _guard(job, lambda job: plan_slide(job, config))
        results.append(found)
        tell.event(SlideFinished(found))
    tell.event(_sum_up(results, tell))
    return results


def _describe_run(log: RunLog, executor: str, workers: int | None, slides: int) -> None:
    from wsiseg import __version__

    log.note(
        f"wsiseg {__version__}, Python {platform.python_version()}, {platform.platform()}; "
        f"{slides} slide(s), executor {executor}, workers {workers or 'as many as cores'}"
    )


def _sum_up(results: Sequence[SlideResult], tell: Teller) -> RunFinished:
    return RunFinished(dict(Counter(result.status for result in results)), tell.seconds())


def _check_formats(config: Config) -> None:
    if config.export.formats == ("geojson",):
        return  # which needs nothing, and the others much
    with loading():
        from wsiseg.export import check_formats
    check_formats(config.export)


def _check_source(config: Config, dry_run: bool) -> None:
    """What no slide can be predicted with is told once, before any is tiled.

    A model that ships needs nothing that could be missing: it is loaded beside the reading.
    """
    if _ships(config):
        return
    if dry_run:  # without torch, and without weights, as far as it goes
        if config.predict.prompts is not None:
            read_prompts(config.predict.prompts)
        return
    with loading():
        from wsiseg.predict import check_source
    check_source(config)


def _ships(config: Config) -> bool:
    """Whether the model is one that ships, used as it was made to be."""
    settings = config.predict
    if settings.prompts is not None or settings.checkpoint not in SHIPPED:
        return False
    as_made = not settings.encoder_options and settings.context is None
    here = settings.device in ("auto", "cpu")
    return as_made and here and config.tile.tile == read_scale(settings).tile


class _Pool:
    """The run's executor, opened anew if it has died."""

    def __init__(self, kind: str, workers: int | None) -> None:
        self._open = partial(open_executor, kind, workers)
        self._lock, self._stack, self._stopped = threading.Lock(), ExitStack(), False
        self.executor = self._stack.enter_context(self._open())
        self.lost = ""
        """Why there is no executor any more; empty while there is."""

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
        """Begin no further block."""
        self._stopped = True
        self.executor.shutdown(wait=False, cancel_futures=True)


class _Record:
    """The results so far, in input order, and the tables that hold them."""

    def __init__(self, tree: OutputTree, jobs: Sequence[Job], tell: Teller, log: RunLog) -> None:
        self._tree, self._jobs = tree, {job.name: job for job in jobs}
        self._tell, self._log = tell, log
        self._found: dict[str, SlideResult] = {}
        self._next_write = 0.0

    @property
    def results(self) -> list[SlideResult]:
        return [self._found[name] for name in self._jobs if name in self._found]

    def add(self, result: SlideResult) -> None:
        """Keep a result; the tables are written too, unless that would take too long too often."""
        result = replace(result, peak_mb=measure_peak())
        self._found[result.slide] = result
        started = time.monotonic()
        if started >= self._next_write:
            with suppress(StoreError):  # the last writing tells
                self.write()
            now = time.monotonic()
            self._next_write = now + _TABLES_SHARE * (now - started)
        ended = f"{result.slide}: {result.status} after {result.seconds:.1f} s"
        text = "; ".join(filter(None, [ended, result.note, result.error]))
        self._log.note(text, "ERROR" if result.error else "INFO")
        self._tell.event(SlideFinished(result))
        self._tell.blocks(self._jobs[result.slide], "slides", len(self._found), len(self._jobs))

    def write(self) -> None:
        write_summary(self._tree, self.results)


def _run_jobs(
    pool: _Pool, work: Callable[[Job], SlideResult], jobs: Sequence[Job]
) -> Iterator[SlideResult]:
    """Each job's result as it ends; some slides at a time, so that no worker waits for the next.

    When a worker process dies, the slides under way fail together; each is then done again by
    itself, and only the one that is to blame fails again.
    """
    many = min(len(jobs), max(1, min(_MOST_SLIDES, in_flight(pool.executor) // _BLOCKS_A_SLIDE)))
    if in_flight(pool.executor) > 1 and len(jobs) > 1:
        many = max(2, many)
    again = []
    with SerialExecutor() if many == 1 else ThreadPoolExecutor(many) as slides:
        try:
            for job, result in run(slides, work, jobs):
                if many > 1 and result.error.startswith(_DIED):
                    again.append(job)
                else:
                    yield result
        except BaseException:  # interrupted: without this, every slide under way would be finished
            pool.stop()
            raise
    yield from map(work, again)


def _annotate_job(
    job: Job, pool: _Pool, tree: OutputTree, config: Config, overwrite: bool, tell: Teller,
    log: RunLog,
) -> SlideResult:  # fmt: skip
    if pool.lost:
        return SlideResult(job.name, str(job.path), "failed", error=f"not begun: {pool.lost}")
    executor = pool.executor
    work = partial(
        annotate_slide, tree=tree, config=config, executor=executor, overwrite=overwrite,
        progress=partial(tell.blocks, job), spent=partial(tell.spent, job),
    )  # fmt: skip
    tell.event(SlideStarted(job.name, str(job.path)))
    named = SLIDE.set(job.name)
    try:
        result = _guard(job, work, log)
    finally:
        SLIDE.reset(named)
    if result.status == "failed":
        pool.renew(executor)
    return result


def _guard(job: Job, work: Callable[[Job], SlideResult], log: RunLog | None = None) -> SlideResult:
    """Run `work`; a failure of this slide becomes its row instead of the end of the batch."""
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


def _point(job: Job) -> SlideResult:
    """The row of a path to a file that another job does."""
    return SlideResult(job.name, str(job.path), "same file", note=f"the same file as {job.same_as}")
