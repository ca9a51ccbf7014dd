"""The GPU kernel without a GPU: run by Triton's interpreter, compiled for two architectures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.model.crf.cases import make_case
from wsiseg.config import CrfConfig
from wsiseg.errors import ConfigError
from wsiseg.model.crf import refine

triton = pytest.importorskip("triton", reason="triton comes with the CUDA builds of torch only")

INTERPRETED = """
import sys, torch
from tests.model.crf.cases import make_case
from wsiseg.config import CrfConfig
from wsiseg.model.crf import refine
for height, width, classes, mode, srgb in CASES:
    probabilities, image = make_case(height, width, classes, 1, noise=20.0)
    settings = dict(mode=mode, smooth_sxy=3.0, appearance_sxy=3.0, appearance_srgb=srgb)
    settings.update(smooth_weight=3.0, appearance_weight=10.0, iterations=2)
    a, b = (refine(probabilities, image, CrfConfig(backend=name, **settings)) for name in NAMES)
    print(height, width, mode, float((a - b).abs().max()), float(b.std()))
"""


def test_the_interpreted_kernel_equals_the_torch_back_end():
    cases = [(18, 13, 5, "fast", 20.0), (11, 17, 3, "exact", 20.0), (8, 9, 17, "exact", 300.0)]
    code = f"CASES = {cases!r}\nNAMES = ('triton', 'torch')\n" + INTERPRETED
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == len(cases)
    for height, width, mode, apart, spread in rows:
        assert float(apart) <= 3e-3, (height, width, mode)
        assert float(spread) > 0.05  # the comparison is not one of constants


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("mode", "classes", "first"),
    [("exact", 5, False), ("fast", 5, False), ("fast", 5, True), ("fast", 32, False)],
)
def test_compiles_without_spills(architecture, mode, classes, first, tmp_path):
    compiled = compile_for(architecture, CrfConfig(mode=mode), classes, first)
    listing = tmp_path / "kernel.ptx"
    listing.write_text(compiled.asm["ptx"])
    assembler = next((Path(triton.__file__).parent / "backends/nvidia").rglob("ptxas"))
    name = f"sm_{architecture}" + ("a" if architecture == 90 else "")
    done = subprocess.run(
        [assembler, "-v", f"--gpu-name={name}", listing, "-o", tmp_path / "kernel.cubin"],
        capture_output=True,
        text=True,
        check=True,
    )
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", done.stderr)
    assert spills == ["0", "0"]
    registers = int(re.search(r"Used (\d+) registers", done.stderr).group(1))
    # Five programs of 128 threads share a multiprocessor's 65,536 registers up to 16 classes.
    assert registers <= (102 if classes <= 16 else 255)
    assert "mma" in compiled.asm["ptx"]


def compile_for(architecture: int, config: CrfConfig, classes: int, first: bool):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from wsiseg.model.crf.block_triton import attend_blocks, kernel_constants

    constants = {**kernel_constants(classes, config), "FIRST": first}
    halves = ("query_ptr", "key_ptr", "query_place_ptr", "key_place_ptr", "value_ptr", "next_ptr")
    singles = ("norm_ptr", "prior_ptr", "message_ptr", "q_ptr")
    numbers = ("exponent", "appearance_weight", "smooth_weight")
    kinds = dict.fromkeys(halves, "*fp16") | dict.fromkeys(singles, "*fp32")
    kinds |= dict.fromkeys(numbers, "fp32") | dict.fromkeys(constants, "constexpr")
    names = attend_blocks.arg_names
    source = ASTSource(
        fn=attend_blocks,
        signature={name: kinds.get(name, "i32") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in (*halves, *singles)},
    )
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={"num_warps": 4})


def test_a_cpu_tensor_is_refused():
    probabilities, image = make_case(16, 16, 3)
    with pytest.raises(ConfigError, match="needs a CUDA device, the tensors are on cpu"):
        refine(probabilities, image, CrfConfig(backend="triton"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_gpu_gives_what_torch_gives(mode):
    probabilities, image = (part.cuda() for part in make_case(225, 231, 5, 2))
    a = refine(probabilities, image, CrfConfig(backend="triton", mode=mode))
    b = refine(probabilities, image, CrfConfig(backend="torch", mode=mode))
    assert float((a.argmax(1) != b.argmax(1)).float().mean()) <= 0.001
    assert float((a - b).abs().mean()) <= 1e-3
