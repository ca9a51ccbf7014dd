"""Annotate every slide of a folder with the default settings: the run a job script would call.

Run: python pipelines/annotate_folder.py FOLDER OUT [EXECUTOR]
EXECUTOR: processes, dask, a scheduler's tcp://HOST:PORT, configs/slurm.yaml, ...
"""

import sys

import wsiseg


def main(folder: str, out: str, executor: str = "processes") -> int:
    """Annotate `folder`; exit status 1 if a slide failed."""
    results = wsiseg.annotate(folder, out, executor=executor, nested=True)
    for result in results:
        print(f"{result.slide}: {result.status} {result.error}")
    return int(any(result.status == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
