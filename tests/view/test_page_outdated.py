"""A page left open while the map is made again, or the viewer is stopped."""

import shutil
import threading

import pytest

from tests.export.stores import make_labels
from tests.view.browser import Page, inside, serving
from tests.view.conftest import REACHED
from tests.view.runs import kinds, make_run, stitch_anew
from wsiseg.pyramid import write_pyramid
from wsiseg.store import SlideStore
from wsiseg.view import open_run
from wsiseg.view.app import build_app
from wsiseg.view.library import Library
from wsiseg.view.serve import _listen, make_server

AGAIN = "The map was made again: it is shown anew."


@pytest.fixture
def left_open(browser, tmp_path, request):
    """A page, near one place, and its run, whose map the test makes again."""
    make_run(tmp_path / "out")
    with serving(tmp_path / "out") as address:
        page = Page(browser, address)
        page.open("#slide=one&x=150&y=120&um=0.3")
        yield page, tmp_path / "out"
        page.settle()
        assert all("412 (Precondition Failed)" in line for line in page.log())
    REACHED.add(request.node.nodeid)


def make_again(out, seed=3, digest="77"):
    """Other labels in the same store, with their outlines and tables, as another model has them."""
    make_run(out.parent / "other", labels=make_labels(seed=seed))
    for name in ("geojson/one.geojson", "summary.csv"):
        shutil.copy(out.parent / "other" / name, out / name)
    other, store = (SlideStore(at / "slides/one.zarr") for at in (out.parent / "other", out))
    for block in range(store.grid.n_blocks):
        box = store.grid.block_box(block)
        store.begin("stitch", block)
        store.write_labels(block, 0, other.read_labels(box), other.read_confidence(box))
        store.mark_done("stitch", block, digest * 32)
    write_pyramid(store.path, "stitch")


def fresh(page):
    """Pixels of the layers once the page is opened at the place where it is."""
    page.settle()
    page.wait(lambda: "um=0.3" in page.run("return location.hash"), "the address does not follow")
    rest = page.run("return location.hash")
    page.open(rest)
    return page.pixels("raster"), page.pixels("vector"), page.place()


def test_the_new_map_is_shown_whole_where_the_view_is(left_open):
    page, out = left_open
    old, areas = page.pixels("raster"), page.text("#legend")
    make_again(out)
    page.pointer(*inside(1)).perform()  # the hover asks
    page.wait(lambda: page.text("#notice") == AGAIN, "nothing is said")
    page.wait(lambda: page.text("#legend") != areas, "the classes are those of the earlier map")
    page.press("\ue00c")
    page.settle()
    seen = page.pixels("raster"), page.pixels("vector"), page.place()
    assert seen[2]["x"] == pytest.approx(150, abs=0.5)
    assert seen[2]["um"] == pytest.approx(0.3, rel=0.01)
    assert seen[0] != old
    raster, vector, _ = fresh(page)
    assert seen[:2] == (raster, vector)
    assert page.text("#notice") == ""


def test_a_tile_that_is_fetched_notices_too(left_open):
    page, out = left_open
    stitch_anew(SlideStore(out / "slides/one.zarr"), "77" * 32)
    page.press("+", "+")
    page.wait(lambda: page.text("#notice") == AGAIN, "nothing is said")
    page.settle()
    assert page.pixels("raster")[0] > 1000
    assert page.text("#state").endswith("regions in view")


def test_a_region_that_is_gone_is_not_deleted_and_that_is_said(left_open):
    page, out = left_open
    page.pointer(*inside(1)).click().perform()
    page.wait(lambda: "Stroma" in page.text("#picked"), "nothing is picked")
    page.run("document.querySelector('.pane').wsiseg.outlines.close()")
    make_again(out)
    page.press("\ue017")  # Delete
    page.wait(lambda: page.text("#notice").startswith("Not saved: the map was made"), "not said")
    page.wait(lambda: page.text("#picked") == "", "it is still selected")
    page.settle()
    assert page.text("#notice").startswith("Not saved: the map was made again")
    assert kinds(out / "corrections/one.geojson") == []
    page.pointer(*inside(1, seed=3)).click().perform()
    page.wait(lambda: "Stroma" in page.text("#picked"), "nothing is picked anew")
    page.press("\ue017")
    page.wait(lambda: kinds(out / "corrections/one.geojson") == ["deleted"], "not deleted")


def test_an_area_drawn_over_an_earlier_map_is_saved(left_open):
    page, out = left_open
    page.press("r")
    make_again(out)
    page.pointer(*inside(1)).click_and_hold().move_by_offset(40, 30).release().perform()
    page.wait(lambda: kinds(out / "corrections/one.geojson") == ["drawn"], "the area is lost")
    page.wait(lambda: page.text("#notice") == AGAIN, "nothing is said")
    page.wait(lambda: "Drawn Tumor" in page.text("#corrections"), "not listed")


def test_regions_deleted_from_an_earlier_map_are_marked(left_open):
    page, out = left_open
    page.pointer(*inside(1)).click().perform()
    page.wait(lambda: "Stroma" in page.text("#picked"), "nothing is picked")
    page.press("\ue017")
    page.wait(lambda: "Deleted Stroma" in page.text("#corrections"), "not deleted")
    assert "earlier" not in page.text("#corrections")
    make_again(out)
    page.open("#slide=one")
    page.wait(lambda: "(of an earlier map)" in page.text("#corrections"), "not marked")
    page.wait(lambda: "1 of the corrections is of a region of an" in page.text("#notice"), "unsaid")


def test_a_map_that_is_being_made_is_awaited(left_open):
    page, out = left_open
    store = SlideStore(out / "slides/one.zarr")
    store.plan("stitch", ["77" * 32] * store.grid.n_blocks)
    page.press("n")
    page.wait(lambda: page.text("#notice") == "The map is being made again.", "nothing is said")
    page.wait(lambda: "not finished" in page.text("#note"), "nothing is noted")
    page.settle()
    assert page.pixels("raster")[0] == 0
    make_again(out)
    page.wait(lambda: "not finished" not in page.text("#note"), "it is not seen")
    page.wait(lambda: page.pixels("raster")[0] > 1000, "it is not shown")
    assert page.text("#notice") == AGAIN


def test_the_run_beside_is_shown_anew_too(browser, roots, tmp_path, request):
    make_run(tmp_path / "out")
    with serving(roots[0], tmp_path / "out") as address:
        page = Page(browser, address)
        page.open("#slide=one&x=150&y=120&um=0.3&beside=1")
        page.wait(lambda: page.place(1), "no second pane")
        page.settle()
        old = page.wait(lambda: page.pixels("raster", 1), "no map on the right")
        make_again(tmp_path / "out")
        page.pointer(*inside(1), pane=1).perform()
        page.wait(lambda: page.text("#notice") == AGAIN, "nothing is said")
        page.wait(lambda: page.pixels("raster", 1) not in (old, None, (0, 0)), "not shown anew")
        page.settle()
        assert page.place(0) == pytest.approx(page.place(1), abs=0.5)
        assert page.place()["um"] == pytest.approx(0.3, rel=0.01)
    page.log()
    REACHED.add(request.node.nodeid)


def test_a_viewer_that_was_stopped_is_told_with_the_command_that_starts_it(
    browser, tmp_path, request
):
    make_run(tmp_path / "out")
    library = Library([open_run(tmp_path / "out")])
    listener = _listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = make_server(build_app(library, command=f"wsiseg view out --port {port}"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    page = Page(browser, f"http://127.0.0.1:{port}/")
    page.open("#slide=one")
    server.should_exit = True
    thread.join(60)
    page.press("r")
    page.pointer(*inside(1)).click_and_hold().move_by_offset(40, 30).release().perform()
    page.wait(lambda: "was stopped or cannot be reached" in page.text("#notice"), "not said")
    assert page.text("#notice").startswith("Not saved: ")
    assert page.text("#notice code") == f"wsiseg view out --port {port}"
    page.log()
    assert not (tmp_path / "out/corrections/one.geojson").exists()
    REACHED.add(request.node.nodeid)
