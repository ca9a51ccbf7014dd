import csv
import re
from html.parser import HTMLParser

import pytest

from wsiseg.report import write_tables

GOOD = {
    "slide": "a/case 1", "path": "/slides/a/case 1.svs", "status": "done", "mpp": 0.2528,
    "mpp_source": "metadata", "tiles": 12, "seconds": 3.25, "tissue_mm2": 8.0, "Tumor_mm2": 2.0,
    "Odd class_mm2": 6.0, "error": "",
}  # fmt: skip
FAILED = {"slide": "cut", "path": "cut.svs", "status": "failed", "seconds": 0.1,
          "error": "=cut.svs: <script>alert('x')</script> & more"}  # fmt: skip
MEASURED = [
    {"slide": "a/case 1", "class": "Tumor", "area_mm2": 2.0, "fraction_of_tissue": 0.25,
     "n_regions": 3, "perimeter_um": 5000.0, "crofton_um": 3926.99, "mean_confidence": 0.8},
    {"slide": "a/case 1", "class": "Odd class", "area_mm2": 6.0, "fraction_of_tissue": 0.75,
     "n_regions": 1, "mean_confidence": ""},
]  # fmt: skip


def read_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_are_stable(tmp_path):
    write_tables(tmp_path, [FAILED, GOOD], MEASURED)
    header = (tmp_path / "summary.csv").read_text().splitlines()[0]
    assert header == (
        "slide,path,status,mpp,mpp_source,tiles,seconds,tissue_mm2,Tumor_mm2,Odd class_mm2,error"
    )
    header = (tmp_path / "measurements.csv").read_text().splitlines()[0]
    assert header == (
        "slide,class,area_mm2,fraction_of_tissue,n_regions,perimeter_um,crofton_um,mean_confidence,"
        "color"
    )
    write_tables(tmp_path, [], [])
    assert read_rows(tmp_path / "summary.csv") == []


def test_rows_come_back(tmp_path):
    write_tables(tmp_path, [GOOD, FAILED], MEASURED)
    good, failed = read_rows(tmp_path / "summary.csv")
    assert good == {name: "" if value == "" else f"{value}" for name, value in GOOD.items()} | {
        "tissue_mm2": "8", "Tumor_mm2": "2", "Odd class_mm2": "6",
    }  # fmt: skip
    assert failed["tissue_mm2"] == ""
    assert [row["area_mm2"] for row in read_rows(tmp_path / "measurements.csv")] == ["2", "6"]


def test_what_was_read_from_a_table_can_be_written_again(tmp_path):
    write_tables(tmp_path, [GOOD, FAILED], MEASURED)
    names = ("summary.csv", "measurements.csv", "report.html")
    first = [(tmp_path / name).read_bytes() for name in names]
    write_tables(
        tmp_path, read_rows(tmp_path / "summary.csv"), read_rows(tmp_path / "measurements.csv")
    )
    second = [(tmp_path / name).read_bytes() for name in names]
    assert second[:2] == first[:2]
    assert second[2].replace(b"&#39;=cut", b"=cut") == first[2]


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@sum", "\tx", '=HYPERLINK("x")'])
def test_formulas_are_neutralised(tmp_path, text):
    write_tables(tmp_path, [{**FAILED, "slide": text}], [])
    assert read_rows(tmp_path / "summary.csv")[0]["slide"] == "'" + text


@pytest.mark.parametrize("number", ["-0.5", "+3", "-1e-5"])
def test_numbers_with_a_sign_stay(tmp_path, number):
    write_tables(tmp_path, [{**GOOD, "tiles": number}], [])
    assert read_rows(tmp_path / "summary.csv")[0]["tiles"] == number


class _Page(HTMLParser):
    """Tags, their attributes, and that every one is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.found, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(path, name="report.html"):
    page = _Page()
    page.feed((path / name).read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


@pytest.mark.parametrize("name", ["report.html", "report/a/case 1.html"])
def test_the_page_is_whole_and_needs_nothing(tmp_path, name):
    write_tables(tmp_path, [GOOD, FAILED], MEASURED)
    page = read_page(tmp_path, name)
    assert [attrs for tag, attrs in page.found if tag == "script"] == [{}], "ours, in the page"
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import|<link", text)
    shown = "".join(page.text)
    for part in ("a/case 1", "done", "8.00 mm²", "0.2528 (metadata)", "Odd class"):
        assert part in shown


def test_names_and_messages_with_html_in_them_are_text(tmp_path):
    bad = "<script>alert('x')</script> & \"more\""
    slide = {**GOOD, "slide": f"in/{bad}", "path": bad, "status": bad, "mpp_source": bad}
    rows = [{**MEASURED[0], "slide": f"in/{bad}", "class": bad}]
    write_tables(tmp_path, [slide | {"note": bad}, {**FAILED, "error": bad}], rows)
    for name in ("report.html", f"report/in/{bad}.html"):
        page = read_page(tmp_path, name)
        assert sum(tag == "script" for tag, _ in page.found) == 1
        assert bad in "".join(page.text)
        assert "<script>alert" not in (tmp_path / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["../out", "/tmp/out", ""])
def test_a_name_that_leads_elsewhere_has_no_page(tmp_path, name):
    write_tables(tmp_path / "run", [{**GOOD, "slide": name}], [{**MEASURED[0], "slide": name}])
    assert sorted(file.name for file in tmp_path.rglob("*.html")) == ["report.html"]


def test_what_needs_somebody_comes_first(tmp_path):
    rows = [
        GOOD, {**GOOD, "slide": "noted", "note": "looks unlike"}, FAILED,
        {"slide": "glass", "status": "no tissue"}, {**FAILED, "slide": "last"},
    ]  # fmt: skip
    write_tables(tmp_path, rows, MEASURED)
    page = read_page(tmp_path)
    names = [attrs["data-name"] for tag, attrs in page.found if tag == "article"]
    assert names == ["cut", "last", "glass", "noted", "a/case 1"]
    shown = "".join(page.text)
    assert "run the same command again" in shown
    assert "tissue/glass.geojson" in shown


def test_a_page_is_written_again_only_if_something_changed(tmp_path):
    write_tables(tmp_path, [GOOD], MEASURED)
    page = tmp_path / "report" / "a" / "case 1.html"
    first = page.read_bytes()
    page.write_bytes(first + b"<!-- not ours -->")
    write_tables(tmp_path, [GOOD], MEASURED)
    assert page.read_bytes() != first, "left as it was"
    write_tables(tmp_path, [GOOD | {"note": "new"}], MEASURED)
    write_tables(tmp_path, [GOOD], MEASURED)
    assert page.read_bytes() == first


def test_a_thousand_slides_stay_small(tmp_path):
    names = [f"case {number:04d}" for number in range(1000)]
    classes = [f"Class number {number}" for number in range(8)]
    rows = [{**MEASURED[0], "slide": name, "class": one} for name in names for one in classes]
    write_tables(tmp_path, [{**GOOD, "slide": name} for name in names], rows)
    assert (tmp_path / "report.html").stat().st_size < 10e6


def test_the_page_links_what_is_there(tmp_path):
    for name in ("overlays/a/case 1.jpg", "geojson/a/case 1.geojson.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    write_tables(tmp_path, [GOOD, FAILED], MEASURED)
    page = read_page(tmp_path)
    links = {attrs.get("href") or attrs.get("src") for tag, attrs in page.found if tag in "a img"}
    assert {"overlays/a/case%201.jpg", "geojson/a/case%201.geojson.gz"} <= links
    assert sum(tag == "img" for tag, _ in page.found) == 1, "no picture of the failed slide"
    assert "made before" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_bar_shares_add_up(tmp_path):
    write_tables(tmp_path, [GOOD], MEASURED)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    shares = [float(share) for share in re.findall(r"flex:([\d.]+);--c", text)]
    assert shares == [0.25, 0.75, 0.25, 0.75]  # the run's bar and the slide's
    assert "--c:#c80000" in text


def test_the_checkpoints_colours_are_shown(tmp_path):
    rows = [
        {**MEASURED[0], "color": "#0a0b0c"}, MEASURED[1],
        {**MEASURED[0], "slide": "b", "color": "#112233"},
        {**MEASURED[1], "slide": "b", "class": "Other", "color": "red;} body {display:none"},
    ]  # fmt: skip
    write_tables(tmp_path, [GOOD, {**GOOD, "slide": "b"}], rows)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    whole, first, second = (
        dict(re.findall(r'<i class="k" style="--c:([^;]*);[^"]*"></i>([\w ]+) <b>', part))
        for part in re.split(r"<h2>", text)
    )
    assert [whole["#0a0b0c"], first["#0a0b0c"], second["#112233"]] == ["Tumor"] * 3
    assert len({*whole, *first, *second}) == 4, "each class has a colour of its own"
    assert "red;}" not in text


def test_the_bar_says_of_the_tissue_what_the_table_says(tmp_path):
    write_tables(tmp_path, [GOOD | {"tissue_mm2": 16.0}], MEASURED)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"flex:([\d.]+);--c", text) == ["0.12500", "0.37500"] * 2
    assert "12.5% of the tissue" in text


def test_the_page_shows_the_measurements(tmp_path):
    write_tables(tmp_path, [GOOD, FAILED], MEASURED)
    text = (tmp_path / "report" / "a" / "case 1.html").read_text(encoding="utf-8")
    assert re.findall(r'<th scope="row">(.*?)</th>', text) == ["Tumor", "Odd class"]
    cells = re.findall(r"<td>(.*?)</td>", text)
    assert cells[:6] == ["2.000", "25.0%", "3", "3.9", "5.0", "0.80"]
    assert len(cells) == 12


def test_a_name_that_is_not_utf8(tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / f"{name}.jpg").write_bytes(b"x")
    write_tables(tmp_path, [{**GOOD, "slide": name}], [])
    assert read_rows(tmp_path / "summary.csv")[0]["slide"] == "caf\\udce9"
    assert 'src="overlays/caf%E9.jpg"' in (tmp_path / "report.html").read_text()


def test_no_slides_is_a_page_too(tmp_path):
    write_tables(tmp_path, [], [])
    assert "No slides yet." in "".join(read_page(tmp_path).text)
    assert [file.name for file in sorted(tmp_path.iterdir())] == [
        "measurements.csv", "report.html", "summary.csv",
    ]  # fmt: skip
