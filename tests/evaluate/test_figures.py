import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from wsiseg.annotations import PALETTES
from wsiseg.cli import app
from wsiseg.errors import CheckpointError, DataError
from wsiseg.evaluate import write_figures
from wsiseg.evaluate.figures import KINDS, draw_cams, draw_features, draw_prototypes
from wsiseg.evaluate.sheet import GAP, LINE, heat, wrap
from wsiseg.model.checkpoint import load_checkpoint, read_info, save_checkpoint
from wsiseg.model.construct import ConStruct
from wsiseg.model.encoders import load_encoder
from wsiseg.model.trained import TrainedModel

PALETTE = PALETTES["bcss"]
SIDE = 224


@pytest.fixture(scope="module")
def image():
    """A blue corner on pink, so that there is something to be seen."""
    pixels = np.full((64, 64, 3), (230, 170, 210), np.uint8)
    pixels[:32, :32] = (90, 60, 140)
    return pixels


@pytest.fixture
def patch(image, tmp_path):
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    Image.fromarray(image).save(path)
    return path


@pytest.fixture(scope="module")
def model():
    return load_checkpoint("tiny")[0]


@pytest.fixture(scope="module")
def other():
    """Adapters at every level, none of them the identity, and two prototypes a class."""
    torch.manual_seed(3)
    made = ConStruct(load_encoder("tiny"), PALETTE.names, prototypes_per_class=2, preset="paper")
    for adapter in made.structure_adapters.values():
        torch.nn.init.normal_(adapter.net[6].weight, std=0.2)
    return made.eval()


def source_of(model):
    return TrainedModel(model, read_info("tiny"))


def panel(sheet, column, row=0, left=GAP, side=256):
    x, y = left + column * (side + GAP), LINE + row * (side + GAP)
    return np.asarray(sheet)[y : y + side, x : x + side]


def test_cams_show_where_the_model_looks(model, other, image):
    sheet = draw_cams(source_of(model), image)
    assert sheet.size == (GAP + 5 * (256 + GAP), LINE + 256 + GAP + LINE)
    assert (panel(sheet, 0)[::4, ::4] == image).all()
    with torch.inference_mode():
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        strongest = int(model(batch).cams.amax((0, 2, 3)).argmax())
    brightest = [int(panel(sheet, 1 + k).astype(int).sum(2).max()) for k in range(4)]
    assert brightest[strongest] == max(brightest), "one scale for all"
    assert (np.asarray(sheet) != np.asarray(draw_cams(source_of(other), image))).any()


def test_each_prototype_has_a_map_of_its_own(model, other, image):
    assert draw_prototypes(model, PALETTE, image).height == LINE + 256 + GAP + LINE
    sheet = draw_prototypes(other, PALETTE, image)
    assert sheet.height == LINE + 2 * (256 + GAP) + LINE
    left = sheet.width - 5 * (256 + GAP)
    maps = [panel(sheet, 1 + k, row, left) for row in (0, 1) for k in range(4)]
    assert len({one.tobytes() for one in maps}) == 8
    seen = np.unique(np.concatenate(maps).reshape(-1, 3), axis=0).tolist()
    ends = heat(np.array([[0.0, 1.0]]))[0].tolist()
    assert all(end in seen for end in ends), "the scale runs from the least to the most"


def test_features_show_the_frozen_and_the_adapted_stages(model, other, image):
    sheet = draw_features({"with distillation": other, "without distillation": model}, image)
    assert sheet.height == LINE + 3 * (256 + GAP) + LINE
    left = sheet.width - 5 * (256 + GAP)
    frozen, with_, without = (
        [panel(sheet, 1 + stage, row, left) for stage in range(4)] for row in range(3)
    )
    for stage in range(4):
        assert (frozen[stage] != with_[stage]).any()
        adapted = str(stage) in model.structure_adapters
        assert (frozen[stage] != without[stage]).any() == adapted, "no adapter, no change"


def test_columns_beyond_the_fifth_continue_below():
    rows = [[np.full((20, 224, 3), 10 * row + column, np.uint8) for column in range(7)]
            for row in range(2)]  # fmt: skip
    titles = [f"column {column}" for column in range(7)]
    sheet = np.asarray(wrap(rows, titles, foot=LINE))
    assert sheet.shape == (2 * (LINE + 2 * (20 + GAP)) + LINE, GAP + 5 * (224 + GAP), 3)
    below = LINE + 2 * (20 + GAP) + LINE
    assert (sheet[below : below + 20, GAP : GAP + 224] == 5).all()
    assert (sheet[below + 20 + GAP :, GAP + 224 + GAP :][:20, :224] == 16).all()
    assert (sheet[-LINE:] == 255).all()


def test_the_command_writes_one_picture_a_patch_and_kind(patch, tmp_path):
    out = tmp_path / "out"
    command = ["picture", "tiny", str(patch.parent), "-o", str(out), "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, "--without", str(copy(tmp_path))])
    assert done.exit_code == 0, done.output
    names = [f"a_{kind}.png" for kind in KINDS]
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    assert [line.rpartition("/")[2] for line in done.output.splitlines()] == names
    assert Image.open(out / "a_features.png").height == LINE + 3 * (256 + GAP) + LINE
    before = {path: path.read_bytes() for path in out.iterdir()}
    again = CliRunner().invoke(app, [*command, "--kind", "cams"])
    assert again.output.splitlines() == [str(out / "a_cams.png")]
    assert all(path.read_bytes() == held for path, held in before.items()), "same bytes again"
    wrong = CliRunner().invoke(app, [*command, "--kind", "heat"])
    assert wrong.exit_code == 2
    assert "not one of cams, prototypes" in " ".join(wrong.output.replace("│", " ").split())


def copy(folder):
    model, info = load_checkpoint("tiny")
    return save_checkpoint(model, info, folder / "without.safetensors")


def test_every_patch_that_cannot_be_drawn_is_listed(patch, tmp_path):
    Image.new("RGB", (48, 64)).save(patch.with_name("odd.png"))
    Image.new("RGB", (64, 64)).save(patch.with_name("a.jpg"))
    patch.with_name("cut.png").write_bytes(patch.read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        write_figures("tiny", [patch.parent], tmp_path / "out", device="cpu")
    text = str(caught.value)
    assert text.startswith("3 problem(s) with the patches")
    assert "odd.png: is 48 x 64 px; the encoder needs multiples of 32" in text
    assert "another patch is named a too" in text
    assert "cut.png: cannot be read" in text
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no image in"):
        write_figures("tiny", [tmp_path], tmp_path / "out", device="cpu")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        write_figures("nothing", [patch], tmp_path / "out", device="cpu")
