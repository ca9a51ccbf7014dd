"""configs/luad.yaml on a set laid out as LUAD-HistoSeg is, made here: names, splits, masks."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsiseg.config import EvaluateConfig, TrainConfig, load_config
from wsiseg.evaluate import evaluate_checkpoint, load_masked_patches
from wsiseg.train import load_patches, train_model

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "luad.yaml"
# As the data set's own readme says: tumour epithelium, necrosis, lymphocytes, stroma; then white.
PALETTE = [205, 51, 51, 0, 255, 0, 65, 105, 225, 255, 165, 0, 255, 255, 255]
LABELS = ("1 0 0 1", "0 1 0 0", "0 0 1 1")


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(90, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, digits in enumerate(LABELS):
        image(tmp_path / "train" / f"103128{number}-2300-27920-[{digits}].png", number)
    for split in ("val", "test"):
        name = f"{len(split)}85277-44539-46781.png"
        image(tmp_path / split / "img" / name, len(split))
        mask = Image.fromarray(np.repeat(np.arange(4, dtype=np.uint8), 16)[:, None].repeat(64, 1))
        mask = mask.convert("P")
        mask.putpalette(PALETTE)
        (tmp_path / split / "mask").mkdir()
        mask.save(tmp_path / split / "mask" / name)
    return tmp_path


def settings() -> TrainConfig:
    """Those of the file, on the encoder that needs no weights."""
    tiny = {
        "encoder": "tiny", "encoder_options": {}, "teacher": "tiny", "teacher_options": {},
        "device": "cpu",
    }  # fmt: skip
    short = {"guidance_levels": (), "epochs": 1}
    return load_config(CONFIG, TrainConfig).model_copy(update=tiny | short)


def test_blanks_between_the_digits_are_read_in_the_order_of_the_classes(data: Path) -> None:
    config = settings()
    assert config.classes == ("Tumor", "Necrosis", "Immune cells", "Stroma")
    assert config.mpp == 1.0
    patches = load_patches(data, config.classes)
    assert patches.labels.tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]]


def test_it_trains_a_step_and_scores_both_splits(data: Path) -> None:
    config = settings()
    out = train_model(load_patches(data, config.classes), config, data / "luad.safetensors")
    (row,) = csv.DictReader((data / "luad.safetensors.csv").open())
    assert all(float(row[name]) > 0 for name in ("total", "classes", "structure", "contrast"))
    quick = EvaluateConfig(tta=1, resamples=5, device="cpu")
    for split, folder in (("valid", "val"), ("test", "test")):
        assert load_masked_patches(data, config.classes, split).folder == data / folder
        for evaluation in evaluate_checkpoint(out, data, quick, split=split):
            assert evaluation.palette.names == config.classes
            assert evaluation.true_classes.all()
            assert evaluation.confusion.sum(1).tolist() == [1024, 1024, 1024, 1024, 0]
