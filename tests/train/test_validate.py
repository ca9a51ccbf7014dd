import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from wsiseg.errors import DataError
from wsiseg.model.trained import load_trained
from wsiseg.train import HeldOut, Patches, hold_out
from wsiseg.train.validate import Part

CLASSES = ("Tumor", "Stroma", "Immune cells", "Necrosis")


def source(names, labels, told=()):
    return Patches(tuple(names), np.array(labels, np.float32), 64, told=told)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Six cases of five patches; only case 5 shows the second class."""
    folder = tmp_path_factory.mktemp("cases")
    names = [folder / f"case{n // 5}_x{n % 5}_y0.png" for n in range(30)]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(name)
    return source(names, [[1, n // 5 == 5] for n in range(30)])


def test_whole_cases_are_held_out_and_no_class_is_lost(cases):
    held_out = set()
    for seed in range(8):
        kept, held = hold_out(cases, 0.34, ("A", "B"), seed)
        assert (len(kept), len(held)) == (20, 10)
        assert not set(kept.cases) & set(held.cases)
        assert sorted(kept.which + held.which) == list(range(30))
        assert kept.labels.any(0).all()
        held_out |= set(held.cases)
        assert hold_out(cases, 0.34, ("A", "B"), seed) == (kept, held)
    assert held_out == {f"case{n}" for n in range(5)}, "case 5 alone shows B"


def test_a_label_that_nobody_knows_shows_no_class(cases):
    """Elsewhere nobody said whether the second class is there: case 5 alone shows it still."""
    labels = np.where(cases.labels == 1, 1, np.nan)
    for seed in range(8):
        _, held = hold_out(source(cases.paths, labels), 0.34, ("A", "B"), seed)
        assert "case5" not in held.cases
        assert len(held) == 10


def test_a_part_reads_its_own_patches(cases):
    part = Part(cases, (7, 3))
    assert np.array_equal(part.read([1, 0]), cases.read([3, 7]))
    assert (part.name(0), part.cases, len(part)) == (cases.name(7), ["case1", "case0"], 2)
    assert part.identity != Part(cases, (3, 7)).identity


def test_a_column_says_more_than_the_name(cases):
    told = tuple("AB"[n % 2] for n in range(30))
    kept, held = hold_out(source(cases.paths, cases.labels, told), 0.5, ("A", "B"))
    assert {len(set(kept.cases)), len(set(held.cases))} == {1}


def test_without_any_case_patches_are_held_out_one_by_one(cases):
    names = [path.with_name(f"{n}.png") for n, path in enumerate(cases.paths)]
    kept, held = hold_out(source(names, cases.labels), 0.2, ("A", "B"))
    assert (len(kept), len(held)) == (24, 6)


def test_a_case_whose_name_is_not_utf8_is_one_as_any(cases):
    names = [path.with_name(f"\udce9{path.name}") for path in cases.paths]
    kept, held = hold_out(source(names, cases.labels), 0.34, ("A", "B"))
    assert len(set(held.cases)) == 2
    assert not set(kept.cases) & set(held.cases)


def test_what_cannot_be_split_is_refused(cases):
    one = source(cases.paths[:5], cases.labels[:5])
    with pytest.raises(DataError, match=r"all 5 patches are of the case 'case0'.*column 'case'"):
        hold_out(one, 0.2, ("A", "B"))
    with pytest.raises(DataError, match=r"nothing can be held out of 30 patches of 6 cases"):
        hold_out(cases, 0.1, ("A", "B"))


def test_the_score_is_minus_the_class_loss(cases):
    tiny = load_trained("tiny")
    labels = np.eye(4)[np.arange(30) % 4]
    held = HeldOut(source(cases.paths, labels))
    held.check(tiny)
    images = torch.from_numpy(cases.read(range(30))).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        want = -F.binary_cross_entropy_with_logits(
            tiny.model(images).logits, torch.from_numpy(labels).float()
        )
    assert held(tiny) == pytest.approx(want.item(), rel=1e-5)


def test_patches_that_do_not_fit_the_model_are_refused_before_training(cases):
    tiny = load_trained("tiny")
    with pytest.raises(DataError, match="labelled with 2 classes, the model has 4"):
        HeldOut(cases).check(tiny)
    odd = Patches(cases.paths, np.ones((30, 4), np.float32), 50)
    with pytest.raises(DataError, match=r"are 50 px a side; encoder 'tiny' takes multiples of 32"):
        HeldOut(odd).check(tiny)
