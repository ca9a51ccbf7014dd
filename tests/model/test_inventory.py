"""No golden array is forgotten: each is asserted by a test that says so, or given to one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.model import golden

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"

GIVEN = {
    "???/images": "what the model sees",
    "???/masks": "the truth that the labels, the scores and the gates are made from",
    "???/memory_ptr_initial": "where the tests let the bank begin to write",
    "unit/crf.image": "input",
    "unit/crf.probs": "input",
    "unit/metric.gt": "input",
    "unit/metric.pred": "input",
    "unit/bank.init": "input",
    "unit/bank.push?.in": "input",
    "unit/mask.cam": "input",
    "unit/nce.anchor": "input",
    "unit/nce.own": "input",
    "unit/nce.others": "input",
    "unit/nce.queue": "input",
    "unit/struct.*.student": "input",
    "unit/struct.*.teacher": "input",
    "unit/seglabel.cam": "input",
    "unit/seglabel.label": "input",
}
"""Arrays that tests start from, by pattern, and what for."""


def gather() -> tuple[set[str], set[str], set[str]]:
    """Names asserted everywhere, those that need a package as well, and those given."""
    pytest.importorskip("open_clip", reason="the encoders' tests need 'wsiseg[encoders]'")
    from tests.evaluate import test_golden_units
    from tests.model import test_reference
    from tests.model.encoders import (
        test_conch,
        test_conch_text,
        test_construct_golden,
        test_evaluation_golden,
        test_segformer,
    )

    modules = (test_golden_units, test_reference, test_conch, test_conch_text,
               test_construct_golden, test_evaluation_golden, test_segformer)  # fmt: skip
    everywhere, elsewhere = golden.asserted_by(
        test for module in modules for test in vars(module).values()
    )
    return set(everywhere), set(elsewhere), set(golden.names(*GIVEN))


def test_every_golden_array_is_asserted_or_given() -> None:
    everywhere, elsewhere, given = gather()
    assert len(golden.index()) == 428
    assert sorted(golden.index().keys() - everywhere - elsewhere - given) == []
    assert sorted(given & (everywhere | elsewhere)) == [], "given, so nothing to assert"
    only = sorted(elsewhere - everywhere)
    assert only == sorted(golden.names(*NEED_PYDENSECRF, *NEED_TOKENIZER))


NEED_PYDENSECRF = ("224/crf_q", "unit/crf.q", "unit/crf.labels", "unit/crf.zero_class2.*",
                   "unit/crf.gauss_only.q")  # fmt: skip
"""The library's own sums, lattice error and all; ours are held to its labels within 0.5 %."""
NEED_TOKENIZER = ("text/*.tokens",)
"""CONCH's tokenizer file may not be passed on; the text tower's tests start from these."""


@pytest.mark.parametrize("pattern", [*GIVEN, *NEED_PYDENSECRF, *NEED_TOKENIZER])
def test_every_exception_names_something(pattern: str) -> None:
    assert golden.names(pattern)


def test_a_test_cannot_claim_what_it_does_not_check() -> None:
    @golden.asserts("unit/nce.bg")
    def idle() -> None:
        golden.array("unit/nce.bg")

    with pytest.raises(AssertionError, match=r"says that it asserts \['unit/nce.bg'\], and did n"):
        idle()


@pytest.mark.parametrize("name", ["224/cam_eval", "224/pyramid0", "unit/mask.out"])
def test_the_comparison_notices(name: str) -> None:
    """Against itself moved by ten tolerances, of another shape, or with one NaN."""
    entry, kept = golden.index()[name], golden.array(name).astype(np.float64)
    whole = np.zeros(entry.shape)
    whole[tuple(slice(*axis) for axis in entry.slice)] = kept
    for spoil in (
        lambda a: a + 10 * max(entry.atol, 1e-3) + 10 * entry.rtol * np.abs(a),
        lambda a: a[:-1],
        lambda a: np.where(np.arange(a.size).reshape(a.shape) == 0, np.nan, a),
    ):
        with pytest.raises(AssertionError, match=name):
            golden.check(name, spoil(whole))


def test_the_arrays_and_tolerances_are_the_reference_sets() -> None:
    if not REFERENCE.is_dir():
        pytest.skip("shared/reference is not beside the checkout")
    entries = json.loads((REFERENCE / "golden_a_index.json").read_text())
    held = {}
    for entry in entries:
        case = entry["file"].removeprefix("golden_a_").removesuffix(".npz")
        held.setdefault(case, []).append(entry)
    assert Counter({case: len(rows) for case, rows in held.items()}) == Counter(
        name.partition("/")[0] for name in golden.index()
    )
    for case, rows in held.items():
        with np.load(REFERENCE / f"golden_a_{case}.npz") as arrays:
            for row in rows:
                mine = golden.index()[f"{case}/{row['name']}"]
                assert list(mine.shape) == row["full_shape"]
                assert (mine.atol, mine.rtol) == (row["atol"], row["rtol"])
                assert mine.outside == row.get("max_outside", 0)
                found = golden.array(f"{case}/{row['name']}")
                assert _digest(found) == _digest(arrays[row["name"]]), row["name"]


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
