from pathlib import Path

import pytest

from wsiseg.errors import ConfigError
from wsiseg.run.manifest import read_manifest


def write(folder, text, encoding="utf-8"):
    path = folder / "m.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "slide, mpp\na.svs, 0.25\n/b.svs\n",
        "MPP ;Slide\r\n0,25;a.svs\r\n;/b.svs\r\n",
        '\nslide\tmpp\n"a.svs"\t0.25\n\n/b.svs\t\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_one_manifest_however_it_is_written(tmp_path, text, encoding):
    entries = read_manifest(write(tmp_path, text, encoding))
    assert [entry[:2] for entry in entries] == [
        (tmp_path / "a.svs", 0.25), (Path("/b.svs"), None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mpp,slide\n0.5,a.svs\n0.5\n", "line 3 has no slide"),
        ("slide,mpp\n", "holds no slide"),
        ("", "is empty; its first line names columns: slide, mpp"),
        ("slide,mmp\na.svs,0.25\n", "has the column 'mmp', which is unknown; is it 'mpp'?"),
        ("slide,mpp\na.svs,0\n", "line 2: mpp '0' is no number above 0"),
        ("slide,mpp\na.svs,-0.5\n", "line 2: mpp '-0.5' is no number above 0"),
        ("slide,mpp\na.svs,nan\n", "line 2: mpp 'nan' is no number above 0"),
        ("slide,mpp\na.svs,0,25\n", "line 2: has 3 cells for 2 columns ('25' is under none)"),
        ("slide\na, b.svs\n", "line 2: has 2 cells for 1 columns ('b.svs' is under none); put quo"),
        ("a.svs\nb.svs\n", "has the columns 'a.svs'; needs 'slide' and may have 'mpp'"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        read_manifest(write(tmp_path, text))
    assert message in str(caught.value)


def test_wrong_rows_are_counted(tmp_path):
    with pytest.raises(ConfigError, match=r"500 problem\(s\) with the manifest") as caught:
        read_manifest(write(tmp_path, "slide,mpp\n" + "a.svs,x\n" * 500))
    assert str(caught.value).endswith("and 490 more")


def test_a_column_without_meaning_is_said(tmp_path, caplog):
    read_manifest(write(tmp_path, "slide,stain\na.svs,H&E\n"))
    assert "ignoring unknown column(s) 'stain'" in caplog.text
