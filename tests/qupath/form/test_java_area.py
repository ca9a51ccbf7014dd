import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

from tests.qupath.regions import annotate, make_region
from wsiseg.qupath import lint_geojson, write_geojson
from wsiseg.qupath.form.java_area import cut_rows
from wsiseg.trace import smooth_regions, trace_regions

FIELD = Path(__file__).resolve().parents[4] / "shared" / "data" / "field" / "qupath-labels"
AREA = """
import java.awt.geom.*;
import java.util.*;
public class Pieces {
    public static void main(String[] none) {
        var input = new Scanner(System.in);
        while (input.hasNextLine()) {
            var words = input.nextLine().split(" ");
            var path = new Path2D.Float();
            for (int i = 0; i < words.length; i += 2) {
                float x = Float.parseFloat(words[i]), y = Float.parseFloat(words[i + 1]);
                if (i == 0) path.moveTo(x, y); else path.lineTo(x, y);
            }
            path.closePath();
            int pieces = 0;
            for (var it = new Area(path).getPathIterator(null); !it.isDone(); it.next())
                if (it.currentSegment(new double[6]) == PathIterator.SEG_MOVETO) pieces++;
            System.out.println(pieces);
        }
    }
}
"""


def staircase(steps):
    """A ring whose left side has `steps` steps: two edges cross each row."""
    up = [(step % 2, step) for step in range(steps)]
    left = [point for x, y in up for point in ((x, y), (x, y + 1))]
    return np.array([*left, (9, steps), (9, 0), (0, 0)], np.float64)


def test_rows_where_java_cuts():
    """Measured with Java 25: it cuts at the first row by which 1,024 crossings have summed up."""
    assert cut_rows(staircase(512)).tolist() == []
    assert cut_rows(staircase(513)).tolist() == [512]
    assert cut_rows(staircase(1537)).tolist() == [512, 1024, 1536]


def test_start_direction_and_scale_change_nothing():
    ring = staircase(600)
    turned = np.roll(ring[:-1], 77, axis=0)
    turned = np.concatenate([turned, turned[:1]])
    for same in (turned, ring[::-1]):
        assert cut_rows(same).tolist() == [512]
    assert cut_rows(ring * 4 - 3).tolist() == [512 * 4 - 3]
    more = np.insert(ring, 3, ring[2:4].mean(0), axis=0)
    assert cut_rows(more).tolist() == [511.0], "a further vertex only makes another row"


def test_lint_names_the_outlines_of_which_area_is_lost(tmp_path):
    hole = np.array([(3, 3), (3, 5), (5, 5), (5, 3), (3, 3)])
    far = np.add(staircase(600), (100, 0))
    regions = [make_region(staircase(500)), make_region(far), make_region(staircase(600), [hole])]
    path = write_geojson(annotate(regions), tmp_path / "a.geojson")
    (finding,) = lint_geojson(path)
    assert (finding.rule, finding.severity) == ("area-loss", "warning")
    assert "QuPath 0.6 and 0.7 lose part of 1 jagged outline(s) without holes (feature 1)" in str(
        finding
    )


def outlines():
    """Traced and smoothed regions of noise, of which some are cut."""
    rng = np.random.default_rng(1)
    for size, sigma in ((60, 1.2), (120, 1.5), (160, 3)):
        noise = scipy.ndimage.gaussian_filter(rng.normal(size=(size, size)), sigma)
        regions = list(trace_regions(np.where(noise > 0, 0, 255).astype(np.uint8)))
        for region in [*regions, *smooth_regions(regions)]:
            yield region.exterior


def run_java(rings, folder):
    """How many pieces Java's own `Area` makes of each ring."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if java is None or not Path(java).exists():
        pytest.skip("Java is not installed")
    lines = "\n".join(" ".join(map(str, ring[:-1].ravel().tolist())) for ring in rings)
    source = folder / "Pieces.java"
    source.write_text(AREA)
    done = subprocess.run(
        [java, "-XX:TieredStopAtLevel=1", str(source)], input=lines, capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"this Java runs no source file: {done.stderr[:200]}")
    return list(map(int, done.stdout.split()))


def test_java_itself_cuts_just_those(tmp_path):
    rings = [staircase(600), *outlines()]
    pieces = run_java(rings, tmp_path)
    if pieces[0] == 1:
        pytest.skip("this Java is too old to cut outlines")
    cut = [len(cut_rows(ring)) > 0 for ring in rings]
    assert cut == [count > 1 for count in pieces]
    assert 5 < sum(cut) < len(cut) - 5


@pytest.mark.skipif(not FIELD.is_dir(), reason="shared/data is not beside the checkout")
@pytest.mark.parametrize(
    ("name", "count"),
    [("1-polygonroi-geometry-loses-area.geojson", 1), ("1-smooth-four-polygons.geojson", 4)],
)
def test_regions_that_lost_area_are_named(name, count):
    (finding,) = lint_geojson(FIELD / name)
    assert re.search(rf"of {count} jagged outline\(s\)", finding.message)
