from pathlib import Path

import pytest

from tests.evaluate.test_report import PALETTE, made_up
from wsiseg.errors import ConfigError, DataError
from wsiseg.evaluate import format_comparison, load_published
from wsiseg.evaluate.compare import Published, _lay_out

PAPER = Path(__file__).resolve().parents[2] / "configs" / "published_bcss.yaml"


def row(**changes) -> Published:
    return Published(**{"name": "M", "source": "a paper", "protocol": "oracle"} | changes)


def test_the_papers_rows_stand_above_ours():
    published = load_published(PAPER)
    rows = 2 + sum(one.protocol == "oracle" for one in published)  # with the head and ours
    lines = format_comparison(made_up("oracle"), published).splitlines()
    assert lines[0].startswith("protocol oracle, %")
    head, full, without, *_, ours = map(cells_of, lines[1 : rows + 1])
    assert head == ["method", *(f"IoU {n}" for n in PALETTE.names), "mIoU"]
    assert full == ["ConStruct, full", *"----", "70.96"]
    assert without == ["ConStruct, without distillation", *"----", "70.40"]
    scores = made_up("oracle").scores
    assert ours[:2] == ["this checkpoint", "75.00"]
    assert ours[4:6] == ["-", f"{100 * scores.miou:.2f}"], "a class that is nowhere has no score"
    head, full, *_, ours = map(cells_of, lines[rows + 1 : 2 * rows + 1])
    assert head == ["method", *(f"Dice {n}" for n in PALETTE.names), "mDice"]
    assert full == ["ConStruct, full", *"----", "82.83"]
    assert ours[5] == f"{100 * scores.mdice:.2f}"
    assert any(line.startswith("ConStruct, full: Le et al.") for line in lines)
    for part in (lines[1 : rows + 1], lines[rows + 1 : 2 * rows + 1]):
        assert len({len(line) for line in part}) == 1, "one width"
    assert max(map(len, lines)) <= 100, "a terminal's"


def cells_of(line):
    return [part.strip() for part in line.split("  ") if part]


@pytest.mark.parametrize("count", [1, 3, 9, 30])
def test_any_number_of_classes_fits_a_terminal(count):
    rows = [["method", *(f"IoU class {n}" for n in range(count))], ["M", *["50.00"] * count]]
    lines = _lay_out(rows, [1])
    assert max(map(len, lines)) <= 100
    shown = [cell for line in lines[::2] for cell in cells_of(line)[1:]]
    assert shown == rows[0][1:], "each column once, in order"
    assert len(lines) == 2 or count > 7


def test_protocols_are_not_mixed():
    published = load_published(PAPER)
    text = format_comparison(made_up("deploy"), published)
    assert "70.96" not in text
    others = sum(one.protocol != "deploy" for one in published)
    assert others >= 3
    assert f"{others} published row(s) of another protocol are not comparable" in text


def test_classes_are_put_in_their_columns():
    text = format_comparison(made_up("oracle"), [row(iou={"Stroma": 61.5}, dice={"Tumor": 7})])
    lines = text.splitlines()
    assert cells_of(lines[2]) == ["M", "-", "61.50", "-", "-", "-"]
    assert cells_of(lines[5]) == ["M", "7.00", "-", "-", "-", "-"]


def test_a_class_that_was_not_scored_is_named():
    with pytest.raises(DataError, match=r"^M: scores the class 'Fat'; this checkpoint has Tumor, "):
        format_comparison(made_up("oracle"), [row(iou={"Fat": 1.0})])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scores: []", "scores"),
        ("scores: [{name: M, source: x, protocol: guess}]", "protocol"),
        ("scores: [{name: M, source: x, protocol: oracle, miou: 170}]", "miou"),
        ("scores: [{name: M, source: x, protocol: oracle, mIoU: 1}]", r"mIoU .* 'miou'"),
    ],
)
def test_bad_files_are_explained(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"p\.yaml: .*{message}"):
        load_published(path)
