from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluate.golden import MINI_BCSS
from wsiseg.annotations import BACKGROUND
from wsiseg.errors import DataError
from wsiseg.evaluate import load_masked_patches
from wsiseg.evaluate.patches import find_split

CLASSES = ("Tumor", "Stroma", "Immune cells", "Necrosis")


def write(folder: Path, name: str, image=(32, 32), mask=(32, 32), value: int = 0) -> None:
    """An image and a mask of one value, sizes in width and height."""
    for part, size in (("img", image), ("mask", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        mode, fill = ("RGB", (9, 8, 7)) if part == "img" else ("L", value)
        Image.new(mode, size, fill).save(folder / part / name)


def test_reads_the_layout_of_bcss():
    patches = load_masked_patches(MINI_BCSS, CLASSES)
    assert len(patches) == 4
    assert patches.size == (224, 224)
    assert [path.name for path in patches.images] == [path.name for path in patches.masks]
    images, labels = patches.read([0, 2])
    assert images.shape == (2, 224, 224, 3)
    assert set(np.unique(labels[0])) == {0, 1, BACKGROUND}
    assert (labels[1] == BACKGROUND).all()
    raw = np.asarray(Image.open(patches.masks[0]))
    assert ((labels[0] == BACKGROUND) == (raw == 4)).all()


def test_finds_the_split_of_either_spelling(tmp_path):
    write(tmp_path / "val", "a.png")  # as LUAD-HistoSeg calls it
    assert find_split(tmp_path, "valid") == tmp_path / "val"
    assert find_split(tmp_path / "val", "test") == tmp_path / "val"
    assert find_split(MINI_BCSS, "val") == MINI_BCSS / "valid"
    with pytest.raises(DataError, match=r"no img/ and mask/ in .* or .*test; give the folder"):
        find_split(tmp_path, "test")


def test_an_image_and_its_mask_may_differ_in_suffix(tmp_path):
    write(tmp_path, "a.png")
    Image.open(tmp_path / "img" / "a.png").save(tmp_path / "img" / "a.jpg")
    (tmp_path / "img" / "a.png").unlink()
    assert load_masked_patches(tmp_path, CLASSES).images[0].name == "a.jpg"


def test_every_problem_is_listed_at_once(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path, name)
    write(tmp_path, "large.png", image=(48, 32), mask=(48, 32))
    write(tmp_path, "odd.png", mask=(32, 16))
    write(tmp_path, "wrong.png", value=7)
    (tmp_path / "mask" / "a.png").unlink()
    (tmp_path / "img" / "b.png").unlink()
    (tmp_path / "img" / "cut.png").write_bytes((tmp_path / "img" / "c.png").read_bytes()[:50])
    Image.new("L", (32, 32)).save(tmp_path / "mask" / "cut.png")
    write(tmp_path, "colour.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "mask" / "colour.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "img" / "c.bmp")
    with pytest.raises(DataError, match="8 problem") as raised:
        load_masked_patches(tmp_path, CLASSES)
    message = str(raised.value)
    for part in (
        "img/a.png: has no mask",
        "mask/b.png: has no image",
        "img/large.png: is 48 x 32 px; patches are of one size (most are 32 x 32)",
        "mask/odd.png: is 32 x 16 px, its image 32 x 32",
        "mask/wrong.png: holds the labels 7; with 4 classes (Tumor, Stroma, Immune cells, "
        "Necrosis) they are 0 to 3, and 4 for background",
        "img/cut.png: cannot be read",
        "mask/colour.png: cannot be read (is in colours, mode RGB",
        "img/c.png: has the name of c.bmp too",
    ):
        assert part in message


def test_no_patch_at_all(tmp_path):
    (tmp_path / "img").mkdir()
    (tmp_path / "mask").mkdir()
    with pytest.raises(DataError, match="img/ holds no image"):
        load_masked_patches(tmp_path, CLASSES)


def test_a_table_says_which_case_each_image_is_of(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path, name)
    assert load_masked_patches(tmp_path, CLASSES).cases is None
    (tmp_path / "cases.csv").write_text("image;case\na.png;P1\nb;P2\nimg/c.png;P1\n")
    assert load_masked_patches(tmp_path, CLASSES).cases == ("P1", "P2", "P1")


def test_every_problem_of_the_table_of_cases_is_listed(tmp_path):
    for name in ("a.png", "b.png"):
        write(tmp_path, name)
    (tmp_path / "cases.csv").write_text("image,case\na.png,P1\na.png,P2\nd.png,P1\n")
    with pytest.raises(DataError) as caught:
        load_masked_patches(tmp_path, CLASSES)
    for said in (
        "cases.csv, line 3: a.png was given another case above", "img/b.png: is not in cases.csv",
        "cases.csv, line 4: 'd.png' is not an image here",
    ):  # fmt: skip
        assert said in str(caught.value)
