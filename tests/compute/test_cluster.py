from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.compute.clusters import PATIENCE, cpu_and_gpu, name_worker, square
from wsiseg.compute import Step, in_flight, is_alive, open_executor, run, run_steps
from wsiseg.compute import cluster as module
from wsiseg.config import ClusterConfig, load_config
from wsiseg.errors import ClusterError, ConfigError, MissingDependencyError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("kind", ["dask", "tcp://10.0.0.1:8786", "slurm.yaml"])
def test_without_dask_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install 'wsiseg\[cluster\]'"),
        open_executor(kind),
    ):
        pass


def test_two_local_clusters_do_not_get_in_each_others_way(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("distributed")
    with (
        caplog.at_level(logging.INFO, logger="wsiseg"),
        open_executor("dask", 1) as one,
        open_executor("dask", 1) as other,
    ):
        for executor in (one, other):
            assert dict(run(executor, square, [5])) == {5: 25}
            assert is_alive(executor)
    addresses = [line for line in caplog.messages if line.startswith("dask: dashboard")]
    assert len(set(addresses)) == 2
    assert all("http://127.0.0.1:" in line for line in addresses)
    assert not is_alive(one)


def costs() -> tuple[bool, str, str]:
    """What a worker was started with."""
    import dask

    watched = dask.config.get("distributed.worker.profile.enabled")
    return watched, dask.config.get("distributed.admin.tick.interval"), os.environ[TRIM]


TRIM = "MALLOC_TRIM_THRESHOLD_"
CHEAP = (False, "1s", str(2**26))


def test_workers_of_ours_are_not_watched_and_keep_their_memory() -> None:
    dask = pytest.importorskip("dask")
    before = dask.config.get("distributed.worker.profile.enabled")
    with open_executor("dask", 1) as executor:
        assert executor.submit(costs).result(PATIENCE) == CHEAP
        assert dask.config.get("distributed.worker.profile.enabled") == before
        assert in_flight(executor) == 2


def test_the_model_runs_where_a_gpu_is(tmp_path: Path) -> None:
    blocks = list(range(20))
    with cpu_and_gpu() as cluster, open_executor(cluster.scheduler_address) as executor:
        assert in_flight(executor) == 8
        work = partial(name_worker, str(tmp_path))
        tile = Step("tile", "", 20, blocks, partial(work, "tile"))
        predict = Step(
            "predict", "", 20, blocks, partial(work, "predict"), lambda b: [("tile", b)], gpu=True
        )
        run_steps(executor, [tile, predict])
    assert {path.read_text() for path in tmp_path.glob("predict*")} == {"gpu"}
    assert {path.read_text() for path in tmp_path.glob("tile*")} == {"cpu", "gpu"}


def need_gpu(folder: str, step: str, block: int) -> None:
    from distributed import get_worker

    name_worker(folder, step, block)
    if get_worker().name != "gpu":
        raise ConfigError("device 'cuda' is not available")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_when_the_last_gpu_leaves_the_settings_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It hung for ever, with idle workers beside it."""
    monkeypatch.setattr(module, "_GPU_POLL_S", 0.2)
    monkeypatch.setattr(module, "_GPU_WAIT_S", 0.6)
    with cpu_and_gpu() as cluster, open_executor(cluster.scheduler_address) as executor:
        assert in_flight(executor) == 8
        gone: list[bool] = []

        def leave(step: str, done: int, total: int) -> None:
            if done == 2 and not gone:
                gone.append(True)
                cluster.sync(cluster.workers["gpu"].close)

        work = partial(name_worker if device == "auto" else need_gpu, str(tmp_path), "predict")
        predict = Step("predict", "", 20, list(range(20)), work, gpu=True)
        if device == "auto":
            run_steps(executor, [predict], leave)
        else:
            with pytest.raises(ConfigError, match="device 'cuda' is not available"):
                run_steps(executor, [predict], leave)
    assert gone
    names = [path.read_text() for path in tmp_path.glob("predict*")]
    assert set(names) == {"cpu", "gpu"}
    assert device == "cuda" or len(names) == 20
    assert "dask: no worker with a GPU is left; its blocks go to the others" in caplog.messages


def test_a_worker_of_another_version_is_refused() -> None:
    with pytest.raises(ClusterError, match=r"has wsiseg .*, this is 0\.0\.1; install the same"):
        module._call("0.0.1", int)


SBATCH = """#!{python}
import pathlib, subprocess, sys
script = pathlib.Path(sys.argv[-1]).read_text()  # as SLURM does: the file is gone once this returns
subprocess.Popen(["bash", "-c", script], stdout=open("{folder}/out", "a"), stderr=subprocess.STDOUT,
                 start_new_session=True)
print("Submitted batch job 17")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SLURM and bash")
def test_slurm_gives_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With commands that stand for SLURM's and run the job script here: real workers, no queue."""
    pytest.importorskip("dask_jobqueue")
    for name, text in {
        "sbatch": SBATCH.format(python=sys.executable, folder=tmp_path),
        "scancel": f"#!{sys.executable}\n",  # the workers end with their scheduler
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    job = {
        "cores": 1, "processes": 1, "memory": "2GB", "walltime": "00:10:00",
        "python": sys.executable, "interface": "lo", "log_directory": str(tmp_path),
        "local_directory": str(tmp_path), "job_script_prologue": [f"export {TRIM}=7"],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},  # another's may run here
    }  # fmt: skip
    config = {"maximum_jobs": 1, "wait_s": PATIENCE, "job": job}
    (tmp_path / "slurm.yaml").write_text(yaml.safe_dump(config))
    with open_executor(str(tmp_path / "slurm.yaml")) as executor:
        assert in_flight(executor) >= 2
        said = executor.submit(costs).result(PATIENCE)
        assert said == (*CHEAP[:2], "7"), "what the user sets must win"
        assert dict(run(executor, square, range(5))) == {item: item * item for item in range(5)}


def test_the_slurm_example_loads_and_makes_a_job_script() -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    config = load_config(CONFIGS / "slurm.yaml", ClusterConfig)
    assert config == ClusterConfig()
    raw = yaml.safe_load((CONFIGS / "slurm.yaml").read_text())
    assert raw.keys() == ClusterConfig.model_fields.keys()
    script = jobqueue.slurm.SLURMJob(
        "tcp://10.0.0.1:8786", name="x", protocol="tcp", **config.job
    ).job_script()
    assert "#SBATCH -t 08:00:00" in script
    assert "--nworkers 8" in script


def test_a_wrong_job_is_told(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    (tmp_path / "c.yaml").write_text("job: {cores: 1, memory: 1GB, interface: nosuch0}\n")
    with (
        pytest.raises(ConfigError, match=r"c\.yaml: job: .*nosuch0"),
        open_executor(str(tmp_path / "c.yaml")),
    ):
        pass


def test_the_kubernetes_example_is_whole() -> None:
    parts = list(yaml.safe_load_all((CONFIGS / "kubernetes.yaml").read_text()))
    assert [part["kind"] for part in parts] == ["Service", *["Deployment"] * 3, "Job"]
    for part in parts[1:]:
        pod = part["spec"]["template"]["spec"]
        mounted = {mount["name"] for c in pod["containers"] for mount in c.get("volumeMounts", ())}
        assert mounted == {volume["name"] for volume in pod.get("volumes", ())}
    for worker in parts[2:4]:
        (container,) = worker["spec"]["template"]["spec"]["containers"]
        given = {variable["name"]: variable["value"] for variable in container["env"]}
        ours = {line.removeprefix("export ") for line in module._prologue(ClusterConfig())}
        assert {f"{name}={value}" for name, value in given.items()} <= ours
        assert given.keys() >= module._MALLOC.keys()
    from typer.testing import CliRunner

    from wsiseg.cli import app

    arguments = parts[-1]["spec"]["template"]["spec"]["containers"][0]["args"]
    said = CliRunner().invoke(app, [*arguments[1:], "--dry-run"])
    assert "/data/slides: does not exist" in said.stderr  # so its options are ours


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_the_job_script_is_bash() -> None:
    script = CONFIGS.parent / "pipelines" / "annotate_slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
