from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsiseg.errors import DataError
from wsiseg.train import load_patches
from wsiseg.train.patches import load_images

CLASSES = ("Tumor", "Stroma", "Immune cells", "Necrosis")
BCSS = Path(__file__).resolve().parents[3] / "shared" / "reference" / "mini_bcss" / "train"


def image(path: Path, width: int = 32, height: int = 32, value: int = 7) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)
    return path


def table(folder: Path, text: str) -> Path:
    path = folder / "patches.csv"
    path.write_text(text)
    return path


def test_flag_columns(tmp_path):
    image(tmp_path / "a.png", value=3)
    image(tmp_path / "sub" / "b.png", value=9)
    csv = table(tmp_path, "image,B,A\na.png,0,1\nsub/b.png,1,1\n")
    patches = load_patches(csv, ("A", "B"))
    assert len(patches) == 2
    assert patches.labels.tolist() == [[1, 0], [1, 1]]
    assert patches.side == 32
    pixels = patches.read([1, 0])
    assert pixels.shape == (2, 32, 32, 3)
    assert pixels[:, 0, 0, 0].tolist() == [9, 3]


def test_label_column(tmp_path):
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    csv = table(tmp_path, "labels,image,by\nTumor; Immune cells,a.png,me\nStroma;Necrosis,b.png,\n")
    assert load_patches(csv, CLASSES).labels.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_folder_reads_the_digits_of_the_base_name(tmp_path):
    folder = tmp_path / "set[11]"
    image(folder / "x_MPP-0.2500+1[10].png")
    image(folder / "y[01].JPG")
    (folder / "readme.txt").write_text("not an image")
    folder.rename(tmp_path / "train")
    assert load_patches(tmp_path, ("A", "B")).labels.tolist() == [[1, 0], [0, 1]]
    (tmp_path / "train").rename(tmp_path / "training")
    assert load_patches(tmp_path, ("A", "B")).labels.tolist() == [[1, 0], [0, 1]]
    assert len(load_images(tmp_path)) == 2
    (tmp_path / "training").rename(folder)
    assert load_patches(folder, ("A", "B")).labels.tolist() == [[1, 0], [0, 1]]


def test_images_of_other_formats_are_named(tmp_path, caplog):
    image(tmp_path / "a[10].png")
    assert len(load_patches(tmp_path, ("A", "B"), to_learn=False)) == 1
    assert not caplog.records
    for name in ("b[10].gif", "c[01].WEBP", "d[01].webp", "e[01].gif"):
        image(tmp_path / name)
    assert len(load_images(tmp_path)) == 1
    told = "4 image(s) left out: b[10].gif, c[01].WEBP, d[01].webp, ...; those read are .png, .jpg"
    assert told in caplog.text


def test_bcss_folder():
    if not BCSS.is_dir():
        pytest.skip("shared/reference/mini_bcss is not beside the checkout")
    patches = load_patches(BCSS, CLASSES)
    assert patches.labels.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]]
    assert patches.side == 224
    assert load_patches(BCSS.parent, CLASSES).paths == patches.paths, "train/ is found"


def test_one_error_lists_every_problem(tmp_path):
    image(tmp_path / "good.png")
    image(tmp_path / "fine.png")
    image(tmp_path / "wide.png", width=40)
    image(tmp_path / "big.png", 48, 48)
    whole = image(tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.full((32, 32), 3000, np.uint16)).save(tmp_path / "deep.png")
    rich = np.full((32, 32, 3), 3000, np.uint16)
    (tmp_path / "rich.png").write_bytes(imagecodecs.png_encode(rich))
    tifffile.imwrite(tmp_path / "rich.tif", rich, photometric="rgb")
    rows = [
        "good.png,1,0", "fine.png,0,1", "none.png,1,0", "wide.png,1,0", "big.png,1,0",
        "cut.png,1,0", "text.png,1,0", "good.png,2,", "good.png,maybe,0",
        "deep.png,1,0", "rich.png,1,0", "rich.tif,0,1",
    ]  # fmt: skip
    csv = table(tmp_path, "image,A,B\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError) as caught:
        load_patches(csv, ("A", "B"))
    message = str(caught.value)
    assert "10 problem(s)" in message
    for part in (
        "line 4, none.png: no such image",
        "line 5, wide.png: is 40 x 32 px; patches are square and of one size (most are 32 x 32)",
        "line 6, big.png: is 48 x 48 px",
        "line 7, cut.png: cannot be read",
        "line 8, text.png: cannot be read",
        "line 9: A = '2', B = ''; a class is 0 or 1",
        "line 10: A = 'maybe'",
        "deep.png: cannot be read (its grey has more than 8 bits (I;16); save it as 8-bit RGB)",
        "rich.png: cannot be read (its colours have more than 8 bits; save it as 8-bit RGB)",
        "rich.tif: cannot be read (its colours have more than 8 bits; save it as 8-bit RGB)",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,labels\na.png,Tumour\n", r"line 2: unknown class \['Tumour'\]; known are"),
        ("file,labels\na.png,Tumor\n", r"has the columns \['file', 'labels'\]; needs image"),
        ("image,Tumor,Stroma\na.png,1,0\n", "needs image and either labels or Tumor, Stroma"),
        ("image,Tumor,Stroma,Immune cells,Necrosis,Fat\na.png,1,0,0,0,0\n", "'Fat'"),
        ("image,labels\n", "holds no patch"),
        ("labels,image\nTumor\n", "line 2: has no image"),
        ("", "is empty; its first line names columns: image, labels, Tumor"),
        ("image,labels\na.png,Tumor;Stroma;Immune cells\n", "no patch shows 'Necrosis'"),
    ],
)  # fmt: skip
def test_bad_tables(tmp_path, text, message):
    image(tmp_path / "a.png")
    with pytest.raises(DataError, match=message):
        load_patches(table(tmp_path, text), CLASSES)


PLAIN = "image,A,B\na.png,1,0\nb.png,0,1\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t").replace("\n", "\r\n"),
        "Image , a,B\na.png,1.0,0.0\nb.png,0.0,1.0\n",
        "image;A;B\na.png;1,0;0,0\nb.png;0,0;1,0\n",
        "image,A,B\na.png,True,False\nb.png,no,YES\n",
        "image;labels\na.png;A\nb.png;B\n",
        "image,A,B,patient\na.png,1,0,7\nb.png,0,1,8\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_one_table_however_it_is_written(tmp_path, text, encoding):
    for name in ("a.png", "b.png"):
        image(tmp_path / name)
    (tmp_path / "patches.csv").write_bytes(text.encode(encoding))
    patches = load_patches(tmp_path / "patches.csv", ("A", "B"))
    assert [path.name for path in patches.paths] == ["a.png", "b.png"]
    assert patches.labels.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,A,B\na.png,1,0\na.png,0,1\n", "line 3: a.png was given in line 2 with other lab"),
        ("image,A,B\na.png,1,0\n./a.png,1,0\n", "line 3: ./a.png was given in line 2 with the sa"),
        ("image,A,B\na.png,1,0\nb.png,0,1,7\n", "line 3: has 4 cells for 3 columns ('7' is under"),
        ("image;labels\na.png;A;B\n", "line 2: has 3 cells for 2 columns ('B' is under none); put"),
        ("image,labels,A\na.png,A,1\n", "needs image and either labels or A, B"),
        ("image,A,B,Fat\na.png,1,0,0\n", "column 'Fat' holds labels, but the classes are A, B"),
        ("image,A,Tumor,Stroma\na.png,1,0,0\n", "needs image and either labels or A, B"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, text, message):
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    with pytest.raises(DataError) as caught:
        load_patches(table(tmp_path, text), ("A", "B"))
    assert message in str(caught.value)


def test_a_link_to_an_image_is_that_image(tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    with pytest.raises(DataError, match=r"line 3: link\.png was given in line 2 with other labels"):
        load_patches(table(tmp_path, "image,A,B\na.png,1,0\nlink.png,0,1\n"), ("A", "B"))


def test_thousands_of_wrong_rows_are_counted(tmp_path):
    image(tmp_path / "a.png")
    rows = "".join(f"a.png,{number},0\n" for number in range(2, 4002))
    with pytest.raises(DataError) as caught:
        load_patches(table(tmp_path, f"image,A,B\n{rows}"), ("A", "B"))
    message = str(caught.value)
    assert "4,000 problem(s)" in message, "and not that there is no patch"
    assert message.endswith("and 3,990 more")
    assert message.count("\n") == 11


def test_not_text(tmp_path):
    (tmp_path / "patches.csv").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with pytest.raises(DataError, match="is not a text table"):
        load_patches(tmp_path / "patches.csv", CLASSES)


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match="does not exist; give a CSV"):
        load_patches(tmp_path / "none", CLASSES)
    with pytest.raises(DataError, match="no patch, nor a folder train/, training/, img/ of them"):
        load_patches(tmp_path, CLASSES)
    (tmp_path / "train").mkdir()
    with pytest.raises(
        DataError, match=r"train: 1 problem\(s\) with the patches\n +holds no patch$"
    ):
        load_patches(tmp_path, CLASSES)
    (tmp_path / "train").rmdir()
    image(tmp_path / "a[10].png")
    image(tmp_path / "b.png")
    with pytest.raises(DataError) as caught:
        load_patches(tmp_path, CLASSES)
    assert "a[10].png: has 2 digits in brackets; 4 of 0 or 1 are needed" in str(caught.value)
    assert "b.png: has no digits in brackets" in str(caught.value)
