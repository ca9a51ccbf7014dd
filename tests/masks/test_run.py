import csv
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from tests.evaluate.golden import MINI_BCSS
from tests.files import contents
from tests.test_config import CONFIGS
from wsiseg.annotations import PALETTES
from wsiseg.cli import app
from wsiseg.config import CrfConfig, EvaluateConfig, MasksConfig, parse_config
from wsiseg.distill import load_masks
from wsiseg.errors import ConfigError, DataError
from wsiseg.evaluate import evaluate_model, load_masked_patches
from wsiseg.masks import write_masks
from wsiseg.model.trained import load_trained

NAMES = PALETTES["bcss"].names
CONFIG = MasksConfig(tta=1, device="cpu", batch_size=3)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Four patches without labels."""
    folder = tmp_path_factory.mktemp("images")
    for image in sorted((MINI_BCSS / "test" / "img").iterdir()):
        shutil.copy(image, folder)
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The same with the classes of their masks in their names, as BCSS-WSSS has its train split."""
    folder = tmp_path_factory.mktemp("data") / "train"
    folder.mkdir()
    patches = load_masked_patches(MINI_BCSS, NAMES)
    for number, image in enumerate(patches.images):
        _, truth = patches.read([number])
        digits = "".join(str(int((truth == label).any())) for label in range(4))
        shutil.copy(image, folder / f"{image.stem}[{digits}].png")
    return folder.parent


@pytest.fixture(scope="module")
def scored():
    """What the evaluation of the two protocols makes of them: labels by protocol and name."""
    found = {}
    config = EvaluateConfig(tta=1, device="cpu", batch_size=3, resamples=1)
    evaluate_model(
        load_trained("tiny"), load_masked_patches(MINI_BCSS, NAMES), config,
        visit=lambda one: found.update({(one.protocol, one.name[:-4]): one.labels}),
    )  # fmt: skip
    return found


def read(path):
    with Image.open(path) as mask:
        assert mask.mode == "P"
        return np.asarray(mask)


def rows(out):
    with (out / "masks.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("data", "protocol"), [("labelled", "oracle"), ("images", "deploy")])
def test_masks_are_those_of_the_protocol(data, protocol, scored, tmp_path, request):
    written = write_masks("tiny", request.getfixturevalue(data), tmp_path, CONFIG)
    assert len(written) == 4
    assert len(list((tmp_path / "mask").iterdir())) == 4
    for row in written:
        labels = scored[protocol, row.image.stem.partition("[")[0]]
        expected = np.where(labels == 255, 4, labels)
        assert (read(row.mask) == expected).all()
        assert row.shares == pytest.approx([(expected == n).mean() for n in range(5)])
    said = json.loads((tmp_path / "masks.json").read_text())
    assert said["gate"] == ("labels" if protocol == "oracle" else "predicted")
    assert said["numbers"] == {**{name: n for n, name in enumerate(NAMES)}, "background": 4}


def test_no_class_is_shown_that_the_label_does_not_name(labelled, tmp_path):
    for row in write_masks("tiny", labelled, tmp_path, CONFIG):
        digits = row.image.stem.partition("[")[2][:4]
        assert row.classes == tuple(n for n, d in zip(NAMES, digits, strict=True) if d == "1")
        shares = zip(row.shares, digits, strict=False)  # background is no class
        assert all(share == 0 or digit == "1" for share, digit in shares)


def test_without_gate_and_crf_it_is_the_most_probable_class(images, tmp_path):
    config = CONFIG.model_copy(update={"gate": "none", "refine": False, "confidence": True})
    source = load_trained("tiny")
    for row in write_masks("tiny", images, tmp_path, config):
        pixels = np.array(Image.open(row.image).convert("RGB"))
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            cams = source.cams(batch).relu()
            low, high = cams.amin((2, 3), True), cams.amax((2, 3), True)
            maps = torch.nn.functional.interpolate(
                (cams - low) / (high - low + 1e-6), (224, 224), mode="bilinear", align_corners=True
            )
        shares = torch.cat([maps, (1 - maps.amax(1, True)) ** 10], 1).softmax(1)[0]
        best, label = shares.max(0)
        agree = read(row.mask) == label.numpy()
        assert agree.mean() > 0.9999
        sure = np.asarray(Image.open(tmp_path / "confidence" / row.mask.name)) / 255
        assert np.abs(sure - best.numpy())[agree].max() < 0.003
        assert row.confidence == pytest.approx(float(best.mean()), abs=1e-4)


def test_a_run_goes_on_to_the_same_bytes(images, tmp_path):
    config = CONFIG.model_copy(update={"confidence": True})
    write_masks("tiny", images, tmp_path / "whole", config)
    before = contents(tmp_path / "whole")
    seen = []
    part = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", part)
    lost = sorted((part / "mask").iterdir())
    lost[1].unlink()
    (part / "confidence" / lost[3].name).unlink()
    (part / "masks.csv").unlink()
    left = part / "confidence" / f".{lost[1].name}.77.88.part"  # of a writer that was killed
    left.write_bytes(b"")
    os.utime(left, (0, 0))
    kept = lost[0].stat().st_mtime_ns
    with ThreadPoolExecutor(2) as pool:
        write_masks("tiny", images, part, config, executor=pool,
                    progress=lambda *step: seen.append(step))  # fmt: skip
    assert contents(part) == before
    assert lost[0].stat().st_mtime_ns == kept
    assert sorted(seen)[-1] == ("masks", 4, 4)
    assert write_masks("tiny", images, part, config) == write_masks("tiny", images, part, config)


def test_masks_of_other_settings_stay_unless_told(images, tmp_path):
    write_masks("tiny", images, tmp_path, CONFIG)
    before = contents(tmp_path)
    other = CONFIG.model_copy(update={"refine": False})
    with pytest.raises(ConfigError, match=r"and 3 more were made with another .* --overwrite"):
        write_masks("tiny", images, tmp_path, other)
    assert contents(tmp_path) == before
    write_masks("tiny", images, tmp_path, other, overwrite=True)
    assert contents(tmp_path) != before
    again = CONFIG.model_copy(update={"refine": False, "crf": CrfConfig(iterations=2)})
    write_masks("tiny", images, tmp_path, again)  # the settings of a CRF that does not run


def test_a_mask_that_is_replaced_takes_its_confidence_with_it(images, tmp_path):
    other = CONFIG.model_copy(update={"refine": False})
    sure = {"confidence": True}
    write_masks("tiny", images, tmp_path / "mixed", CONFIG.model_copy(update=sure))
    old = contents(tmp_path / "mixed" / "confidence")
    write_masks("tiny", images, tmp_path / "mixed", other, overwrite=True)
    assert not (tmp_path / "mixed" / "confidence").exists()
    (tmp_path / "mixed" / "confidence").mkdir()
    for name, data in old.items():  # left behind by an earlier version
        (tmp_path / "mixed" / "confidence" / name).write_bytes(data)
    with pytest.raises(DataError, match=r"its confidence is of another mask than the one"):
        load_masks(tmp_path / "mixed", images)
    for out in ("mixed", "whole"):
        write_masks("tiny", images, tmp_path / out, other.model_copy(update=sure))
    assert contents(tmp_path / "mixed") == contents(tmp_path / "whole")
    assert load_masks(tmp_path / "mixed", images).has_confidence


def test_what_a_person_changed_is_certain_and_the_rest_as_it_was(images, tmp_path):
    config = CONFIG.model_copy(update={"confidence": True})
    first = write_masks("tiny", images, tmp_path, config)[0].mask
    before = load_masks(tmp_path, images).reader([0])
    changed = np.zeros((224, 224), bool)
    changed[50:90, 60:80] = True
    changed &= before.labels[0] != 1
    assert changed.any()
    assert (before.confidence[0][changed] < 255).all()
    with Image.open(first) as mask:
        mask.load()
        for y, x in np.argwhere(changed).tolist():
            mask.putpixel((x, y), 1)
        mask.save(first)  # without the stamp
    after = load_masks(tmp_path, images).reader([0])
    assert (after.labels[0] == np.where(changed, 1, before.labels[0])).all()
    assert (after.confidence[0] == np.where(changed, 255, before.confidence[0])).all()
    about = json.loads((tmp_path / "masks.json").read_text())
    about["checkpoint"]["sha256"] = "cd" * 32  # of another model
    (tmp_path / "masks.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"1 problem(?s:.*)its confidence is of another mask"):
        load_masks(tmp_path, images)


def test_a_mask_that_a_person_edited_is_never_replaced(images, tmp_path):
    first = write_masks("tiny", images, tmp_path, CONFIG)[0].mask
    with Image.open(first) as mask:
        mask.putpixel((3, 3), 2)
        mask.save(first, pnginfo=None)
    edited = first.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"edited or made elsewhere"):
            write_masks("tiny", images, tmp_path, CONFIG, overwrite=overwrite)
    assert first.read_bytes() == edited


def test_two_images_of_one_name_are_refused(images, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    name = next((tmp_path / "images").iterdir()).stem
    Image.new("RGB", (224, 224)).save(tmp_path / "images" / f"{name}.tif")
    with pytest.raises(DataError, match=name):
        write_masks("tiny", tmp_path / "images", tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()


def test_patches_that_do_not_fit_are_refused_before_any_work(tmp_path):
    Image.new("RGB", (50, 50)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="50 x 50 px"):
        write_masks("tiny", tmp_path, tmp_path / "out", CONFIG)


def test_labels_are_demanded_where_they_are_asked_for(images, tmp_path):
    config = CONFIG.model_copy(update={"gate": "labels"})
    with pytest.raises(DataError, match="no digits in brackets"):
        write_masks("tiny", images, tmp_path, config)


def test_settings_file_holds_every_default():
    raw = yaml.safe_load((CONFIGS / "masks.yaml").read_text())
    assert raw.keys() == MasksConfig.model_fields.keys()
    assert parse_config(raw, MasksConfig, "masks.yaml") == MasksConfig()


def test_command_line(images, tmp_path):
    given = ["masks", "tiny", str(images), "-o", str(tmp_path), "--set", "tta=1", "--no-crf"]
    done = CliRunner().invoke(app, [*given, "--confidence", "--gate", "none", "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert "4 masks" in done.output
    assert {row["gate"] for row in rows(tmp_path)} == {"none"}
    assert all(row["classes"].split(";") == list(NAMES) for row in rows(tmp_path))
    wrong = CliRunner().invoke(app, [*given, "--gate", "truth"])
    assert wrong.exit_code == 1
    assert "truth" in wrong.output
