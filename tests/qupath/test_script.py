import re

from wsiseg.annotations import PALETTES
from wsiseg.qupath import write_import_script


def test_the_script_knows_its_folder_and_the_colours(tmp_path):
    path = write_import_script(tmp_path)
    assert path == tmp_path / "qupath" / "import.groovy"
    text = path.read_text(encoding="utf-8")
    assert f"def OUTPUT = '{tmp_path.resolve().as_posix()}'" in text
    for name, color in zip(PALETTES["bcss"].names, PALETTES["bcss"].colors, strict=True):
        assert f"'{name}': {list(color)}" in text
    assert not re.search(r"@[A-Z]+@", text), "a placeholder was left"


def test_a_folder_with_a_quote_and_a_dollar(tmp_path):
    root = tmp_path / "it's $5"
    text = write_import_script(root).read_text(encoding="utf-8")
    assert "it\\'s $5'" in text


def test_brackets_pair_up(tmp_path):
    text = write_import_script(tmp_path).read_text(encoding="utf-8")
    code = re.sub(r"/\*.*?\*/|//[^\n]*|'(?:\\.|[^'\\])*'", "", text, flags=re.S)
    for opening, closing in ("{}", "[]"):
        assert code.count(opening) == code.count(closing)
