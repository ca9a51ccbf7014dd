"""What a cluster's executor tells, whenever workers, clients and schedulers come and go."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.compute.clusters import PATIENCE, cpu_and_gpu, name_worker, square
from tests.waiting import wait_until
from wsiseg.compute import Step, in_flight, is_alive, open_executor
from wsiseg.compute import cluster as module
from wsiseg.errors import ClusterError


def fail(block: int) -> None:
    raise ValueError(f"block {block}")


class Held:
    """What ended is passed on only when `go` is set, as by a thread that gets no turn for long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.come, self.go, self.passed = threading.Event(), threading.Event(), threading.Event()
        finish, self.seen = module.DaskExecutor._finish, list[str]()

        def late(executor: Any, *args: Any) -> None:
            self.seen.append(args[-1].status)
            self.come.set()
            assert self.go.wait(PATIENCE)
            self.seen.append(args[-1].status)
            finish(executor, *args)
            self.passed.set()

        monkeypatch.setattr(module.DaskExecutor, "_finish", late)


def test_what_a_worker_did_before_it_left_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its futures turn from finished to lost: they were taken for a lost scheduler."""
    held = Held(monkeypatch)
    with cpu_and_gpu() as cluster, open_executor(cluster.scheduler_address) as executor:
        assert in_flight(executor) == 8
        block = executor.submit_block(Step("predict", "", 1, [0], square, gpu=True), 0)
        assert held.come.wait(PATIENCE)
        cluster.sync(cluster.workers["gpu"].close)
        held.go.set()
        assert block.result(PATIENCE) is None
    assert held.seen[0] == "finished"
    assert held.seen[1] in ("lost", "pending")


def test_a_block_that_is_done_when_the_gpus_are_left_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was dropped if it was passed on while it was looked at, and the run waited for ever."""
    distributed = pytest.importorskip("distributed")
    held, looking = Held(monkeypatch), threading.current_thread()
    status = distributed.Future.status

    def look(future: Any) -> Any:
        result = status.fget(future)
        if threading.current_thread() is looking:
            held.go.set()
            held.passed.wait(1)  # if it may be passed on now
        return result

    with cpu_and_gpu() as cluster, open_executor(cluster.scheduler_address) as executor:
        assert in_flight(executor) == 8
        block = executor.submit_block(Step("predict", "", 1, [0], square, gpu=True), 0)
        assert held.come.wait(PATIENCE)
        monkeypatch.setattr(distributed.Future, "status", property(look))
        executor._give_up_gpus()
        assert block.result(PATIENCE) is None


def test_what_failed_just_before_the_scheduler_was_lost_is_not_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its future turns from an error to cancelled, and has none any more: it was taken for done."""
    distributed = pytest.importorskip("distributed")
    exception = distributed.Future.exception

    def lose(future: Any, **settings: Any) -> Any:
        client = future.client
        client.loop.add_callback(client.scheduler_comm.comm.abort)
        wait_until(lambda: future.status == "cancelled", PATIENCE)
        return exception(future, **settings)

    monkeypatch.setattr(distributed.Future, "exception", lose)
    with cpu_and_gpu() as cluster, open_executor(cluster.scheduler_address) as executor:
        block = executor.submit_block(Step("predict", "", 1, [0], fail), 0)
        with pytest.raises(ClusterError, match=r"the dask scheduler at tcp://127.* was lost"):
            block.result(PATIENCE)


def test_a_client_that_was_closed_says_what_was_lost() -> None:
    """It knows no address any more: an AttributeError of ours was told instead."""
    with cpu_and_gpu() as cluster, open_executor(cluster.scheduler_address) as executor:
        executor._client.close()
        assert not is_alive(executor)
        assert in_flight(executor) == 8, "as was known"
        with pytest.raises(ClusterError, match=r"the dask scheduler at tcp://127.* was lost"):
            executor.submit(square, 3).result(PATIENCE)
        executor.shutdown(cancel_futures=True)


def test_a_client_that_is_closed_meanwhile_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = pytest.importorskip("distributed")
    add_callback = distributed.Future.add_done_callback

    def close(future: Any, call: Any) -> None:
        future.client.close()
        add_callback(future, call)

    with cpu_and_gpu() as cluster, open_executor(cluster.scheduler_address) as executor:
        monkeypatch.setattr(distributed.Future, "add_done_callback", close)
        with pytest.raises(ClusterError, match="was lost"):
            executor.submit(square, 3).result(PATIENCE)


def test_nothing_begins_once_the_executor_is_shut_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A call that came between was neither refused nor cancelled."""
    send = module.DaskExecutor._send

    def shut_down(executor: Any, task: Any) -> None:
        executor.shutdown(cancel_futures=True)
        send(executor, task)

    with cpu_and_gpu() as cluster, open_executor(cluster.scheduler_address) as executor:
        monkeypatch.setattr(module.DaskExecutor, "_send", shut_down)
        step = Step("tile", "", 1, [0], partial(name_worker, str(tmp_path), "tile"))
        with pytest.raises(RuntimeError, match="the executor was shut down"):
            executor.submit_block(step, 0).result(PATIENCE)
        with pytest.raises(RuntimeError, match="the executor was shut down"):
            executor.submit_block(step, 0)
    assert not list(tmp_path.iterdir())


def test_the_workers_are_known_whatever_the_client_keeps_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it keeps, it replaces by an empty list now and then: GPUs were left unused."""
    distributed = pytest.importorskip("distributed")
    refresh = distributed.Client._update_scheduler_info

    async def refresh_again(client: Any, n_workers: int = 0) -> None:
        await refresh(client, n_workers)
        await refresh(client)  # as it does by itself every two seconds

    monkeypatch.setattr(distributed.Client, "_update_scheduler_info", refresh_again)
    with cpu_and_gpu() as cluster, open_executor(cluster.scheduler_address) as executor:
        assert in_flight(executor) == 8
        assert executor._has_gpu


begun, go_on = threading.Event(), threading.Event()


def stay(block: int) -> None:
    begun.set()
    go_on.wait(PATIENCE)


def test_a_block_of_which_workers_die_is_told() -> None:
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cpu_and_gpu() as cluster,
        open_executor(cluster.scheduler_address) as executor,
    ):
        assert in_flight(executor) == 8
        block = executor.submit_block(Step("predict", "", 1, [0], stay, gpu=True), 0)
        assert begun.wait(PATIENCE)
        lost = cluster.workers["gpu"].address  # as if it had been killed
        cluster.sync(cluster.scheduler.remove_worker, address=lost, stimulus_id="test")
        go_on.set()
        with pytest.raises(ClusterError, match=r"workers die of this block: .* while running it"):
            block.result(PATIENCE)
