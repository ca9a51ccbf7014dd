"""The documentation's commands are run, in one folder, page by page, as a reader would.

A block that is not run says why in a comment above it; its commands must still be ones that exist.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from wsiseg.cli import app
from wsiseg.demo.synthesis import synthesize_slide

DOCS = Path(__file__).resolve().parents[1] / "docs"
GENERATED = {"api.md", "commands.md", "settings.md"}
PAGES = [DOCS / "start.md", *sorted(DOCS.glob("howto/*.md"))]
BLOCK = re.compile(r"(?:<!-- (not run: [^>]+) -->\n)?^```(console|python)\n(.*?)^```$", re.M | re.S)


def blocks(page):
    """(language, body, why it is not run) of each block of a page."""
    return [(m[2], m[3], m[1]) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands(body):
    return [line[2:] for line in body.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small slides, a manifest, rectangles of two classes on each, and labelled patches."""
    folder = tmp_path_factory.mktemp("docs")
    slides, labels, images = (folder / name for name in ("slides", "labels", "images"))
    for path in (slides, labels, images):
        path.mkdir()
    rng = np.random.default_rng(0)
    rows = ["image,labels,case"]
    for seed, name in enumerate(("one", "two")):
        synthesize_slide(slides / f"{name}.svs", width=2048, height=1536, seed=seed + 5)
        areas = [(200, 200, 900, 1300, "Tumor"), (1100, 200, 1900, 1300, "Stroma")]
        text = {"type": "FeatureCollection", "features": [rectangle(*area) for area in areas]}
        (labels / f"{name}.geojson").write_text(json.dumps(text))
        for at in range(6):
            pixels = rng.integers(90, 230, (28, 28, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(pixels).save(images / f"{name}_{at}.png")
            rows.append(f"images/{name}_{at}.png,{('Tumor', 'Stroma')[at % 2]},{name}{at // 2}")
    (folder / "patches.csv").write_text("\n".join(rows) + "\n")
    (folder / "manifest.csv").write_text("slide,mpp\nslides/one.svs,0.25\nslides/two.svs,0.25\n")
    return folder


def rectangle(left, top, right, bottom, name):
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for language, body, why in blocks(page):
        if why:
            continue
        if language == "python":
            exec(body, {})
            continue
        assert commands(body), f"{page.name}: a block without a command"
        for command in commands(body):
            name, *arguments = shlex.split(command)
            assert name == "wsiseg", f"{page.name}: {command}: say why it is not run"
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, f"{page.name}: {command}\n{done.output}\n{done.exception}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_exists(page):
    shown = [line for _, body, why in blocks(page) if why for line in commands(body)]
    inline = re.findall(r"`(wsiseg [a-z][^`]*)`", page.read_text(encoding="utf-8"))
    for command in [part.strip() for line in shown + inline for part in line.split("&&")]:
        if command.startswith("wsiseg "):
            check_exists(command)


def check_exists(command):
    """That the command and each of its options are there."""
    words = shlex.split(command.rstrip("."))[1:]
    known = get_command(app)
    while words and hasattr(known, "commands") and not words[0].startswith("-"):
        assert words[0] in known.commands or words[0].isupper(), command
        known = known.commands.get(words.pop(0), known)
    options = {option for parameter in known.params for option in parameter.opts}
    options |= {option for parameter in known.params for option in parameter.secondary_opts}
    for word in words:
        if word.startswith("-") and not re.fullmatch(r"-\d.*", word):
            assert word.split("=")[0] in options | {"--help"}, f"{command}: {word}"


def test_every_link_between_pages_leads_somewhere():
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(((?!http)[^)#]+)", page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            assert path.exists() or path.name in GENERATED, f"{page.name}: {target}"
