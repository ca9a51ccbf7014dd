import os
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsiseg.run.jobs import plan_jobs
from wsiseg.run.names import fold_name, name_outputs


def names_of(*slides):
    return name_outputs([(Path("/in", slide), Path(slide)) for slide in slides])


def test_a_name_is_the_slides_without_its_extension():
    assert names_of("a.svs", "sub/a.svs", "b.c.tif") == ["a", "sub/a", "b.c"]


@pytest.mark.parametrize("order", list(permutations(["x.svs", "x.tif", "x.svs.tif"])))
def test_an_extension_that_was_kept_is_no_other_slides_name(order):
    found = dict(zip(order, names_of(*order), strict=True))
    assert found == {"x.svs": "x.svs", "x.tif": "x.tif", "x.svs.tif": "x.svs.tif"}


def test_names_of_one_kind_on_some_file_systems():
    assert names_of("S.svs", "s.svs") != ["S", "s"]
    found = names_of("M\u00fc.svs", "Mu\u0308.svs")  # composed and not
    assert [len(Path(name).name.split("-")[-1]) for name in found] == [8, 8]


def test_slides_of_one_name_in_two_folders_get_a_hash():
    found = name_outputs([(Path("/x/s.svs"), Path("s.svs")), (Path("/y/s.svs"), Path("s.svs"))])
    assert len(set(found)) == 2
    assert all(name.startswith("s.svs-") and len(name) == 14 for name in found)


@pytest.mark.parametrize("letter", ["a", "\u65e5", "\udce9"])
def test_long_names_are_cut_and_told_apart(letter):
    size = len(os.fsencode(letter))
    first, second = (letter * (250 // size - 1) + end for end in ("x", "y"))
    found = names_of(f"sub/{first}.svs", f"sub/{second}.svs")
    assert found[0] != found[1]
    for name in found:
        assert name.startswith("sub/")
        assert len(os.fsencode(name.removeprefix("sub/"))) <= 200
    assert found == names_of(f"sub/{first}.svs", f"sub/{second}.svs")


class Named:
    """Names of an earlier run, and the path of the slide that has each."""

    def __init__(self, paths):
        self.paths = paths

    def keep(self, slides):
        return [
            next((name for name in self.paths if self.paths[name] == path), None)
            for path, _ in slides
        ]

    def is_taken(self, name):
        return fold_name(name) in map(fold_name, self.paths)


def name_with(named, *slides):
    paths = [(Path("/in", slide), Path(slide)) for slide in slides]
    return name_outputs(paths, Named(named))


@pytest.mark.parametrize("order", list(permutations(["s.tif", "s.tiff", "s.tif.svs"])))
def test_a_slide_keeps_the_name_that_it_has(order):
    named = {"s": Path("/in/s.tif")}
    found = dict(zip(order, name_with(named, *order), strict=True))
    assert found == {"s.tif": "s", "s.tiff": "s.tiff", "s.tif.svs": "s.tif"}
    named = {"s.tif": Path("/in/s.tif"), "s.tiff": Path("/in/s.tiff")}
    assert name_with(named, "s.tif") == ["s.tif"]
    found = dict(zip(order, name_with(named, *order), strict=True))
    assert found == {"s.tif": "s.tif", "s.tiff": "s.tiff", "s.tif.svs": "s.tif.svs"}


def test_another_slides_name_is_not_taken():
    """Else `--overwrite` replaced the results of a slide that was not given."""
    elsewhere = {"s": Path("/else/s.tif")}
    assert name_with(elsewhere, "s.tif") == ["s.tif"]
    assert name_with({"S": Path("/else/S.tif")}, "s.tif") == ["s.tif"], "case aside"
    elsewhere["s.tif"] = Path("/more/s.tif")
    (third,) = name_with(elsewhere, "s.tif")
    assert third.startswith("s.tif-")
    elsewhere[third] = Path("/in/moved/from/here")
    (fourth,) = name_with(elsewhere, "s.tif")
    assert fourth.startswith("s.tif-")
    assert fourth != third


def test_a_name_from_another_sub_folder_is_kept():
    assert name_with({"sub/s": Path("/in/s.tif")}, "s.tif") == ["sub/s"]


SLIDES = st.tuples(
    st.sampled_from(["", "sub/"]), st.sampled_from(["x", "X", "x.svs", "x.tif", "x.svs.tif"]),
    st.sampled_from([".svs", ".tif", ".SVS"]),
).map("".join)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # of the machine, not ours
@given(
    st.lists(st.tuples(st.sampled_from(["/a", "/b"]), SLIDES), unique=True, max_size=12),
    st.integers(0, 12), st.integers(0, 12),
)  # fmt: skip
def test_no_two_are_alike(slides, first, last):
    """Nor do the names change that some slides have from a run of their own."""
    paths = [(Path(root, slide), Path(slide)) for root, slide in slides]
    names = name_outputs(paths[first:last])
    own = {name: path for name, (path, _) in zip(names, paths[first:last], strict=True)}
    found = name_outputs(paths, Named(own))
    assert len({name.casefold() for name in found}) == len(slides)
    assert found[first:last] == list(own)


def test_names_never_collide(tmp_path):
    for name in ("x/s.svs", "x/s.tif", "y/s.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [job.name for job in plan_jobs([tmp_path / "x", tmp_path / "y"])]
    assert len({name.casefold() for name in names}) == 3
    nested = [job.name for job in plan_jobs([tmp_path], nested=True)]
    assert nested == ["x/s.svs", "x/s.tif", "y/s"]
