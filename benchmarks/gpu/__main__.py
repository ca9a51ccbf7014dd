"""Everything that wsiseg does on a GPU, in one call of at most eight minutes.

    python benchmarks/gpu [--parts kernels crf model training job decode] [--seconds 480]
                          [--device cuda|cpu] [--out gpu.json]

Every part is a separate process with its share of the time; measurements that do not fit are named.
It makes its own data. `kernels`, `crf`, `model` and `training` need torch, numba,
pydantic, PyYAML, safetensors and the checkout (`model` and `training` what `wsiseg predict` imports
besides); `job` needs all that wsiseg does. On a machine without a network they can come as wheels:
`pip download --only-binary=:all: -d wheels ...` elsewhere, `pip install --no-index --target site
wheels/*` there, and `PYTHONPATH=site`. `--device cpu` is a small rehearsal, whose times are
meaningless.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crf_parts import crf, kernels
from model_parts import model, training
from part import Part, Row
from slide_parts import decode, job

SHARES = {"kernels": 0.1, "crf": 0.2, "model": 0.3, "training": 0.1, "job": 0.25, "decode": 0.05}
"""Part -> its share of the time, if all are asked for."""

PARTS: dict[str, Callable[[Part], None]] = {
    "kernels": kernels, "crf": crf, "model": model, "training": training, "job": job,
    "decode": decode,
}  # fmt: skip


def main() -> None:
    """Run the parts one after the other, print their tables, and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_AsWritten)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        PARTS[given.parts[0]](Part(given.device, given.seconds))
        return
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device: nothing is measured (--device cpu rehearses)")
    name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU (a rehearsal)"
    print(f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    found: dict[str, Any] = {"device": name, "torch": torch.__version__}
    whole = sum(SHARES[part] for part in given.parts)
    for part in given.parts:
        seconds = given.seconds * SHARES[part] / whole
        found[part] = run_part(part, given.device, seconds)
        print_table(part, found[part])
        given.out.write_text(json.dumps(found, indent=1))


def run_part(part: str, device: str, seconds: float) -> list[Row]:
    """Run a part in a process; rows are kept even if it hangs or dies."""
    command = [sys.executable, "-u", __file__, "--one", "--parts", part, "--device", device]
    command += ["--seconds", str(0.9 * seconds)]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        try:
            code = subprocess.run(
                command, stdout=said, stderr=wrong, timeout=max(30.0, seconds), check=False
            ).returncode
            why = "" if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            why = "its time was over"
        said.seek(0)
        wrong.seek(0)
        rows = [json.loads(line) for line in said if line.startswith("{")]
        if why:
            last = (wrong.read().strip().splitlines() or [""])[-1]
            rows.append({"what": "the rest", "why": f"{why}: {last}"[:300]})
    return rows


def print_table(part: str, rows: list[Row]) -> None:
    """Print a Markdown table for RESULTS.md."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(f"\n## {part}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(str(row.get(name, '')) for name in names)} |", flush=True)


class _AsWritten(argparse.RawDescriptionHelpFormatter):
    """A formatter that keeps the lines of the description."""


if __name__ == "__main__":
    main()
