import pytest

from wsiseg.cases import Place, find_case, find_place, group_cases


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500+[1010].png", "TCGA-A1-A0SK"),
        ("1031280-2300-27920-[1 0 0 1].png", "1031280"),
        ("slide 7 [x=448,y=0,w=224,h=224].png", "slide 7"),
        ("slide 7 [d=2,x=448,y=0,w=224,h=224].tif", "slide 7"),
        ("case3_x10_y20.png", "case3"),
        ("S-12_row3_col4.jpeg", "S-12"),
        ("B07-1234_A_0_1.jpg", "B07-1234_A"),
        ("TCGA-A1-A0SK-01Z-00-DX1.svs", "TCGA-A1-A0SK"),
        *((name, None) for name in ("0001.png", "img_12.png", "3[10].png", "x1_y2.png", "a_b.png")),
    ],
)
def test_the_case_stands_before_the_place(name, case):
    assert find_case(name) == case


def test_a_patch_of_no_case_stands_alone_and_one_case_tells_nothing():
    assert group_cases(["a", "b", "c"], ["x", None, "x"]) == ["x", "patch b", "x"]
    assert group_cases(["a", "b"], [None, None]) is None
    assert group_cases(["a", "b"], ["x", "x"]) is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("1031280-2300-27920-[1 0 0 1].png", Place("1031280", 2300, 27920)),
        ("slide 7 [x=448,y=0,w=224,h=224].png", Place("slide 7", 448, 0)),
        ("fistula_x10295_y20883.jpg", Place("fistula", 10295, 20883)),
        ("S-12_row3_col4.jpeg", Place("S-12", 3, 4)),
        (
            "TCGA-A1-A0SK-DX1_xmin457_ymin250_MPP-0.2500+224+0[1010].png",
            Place("TCGA-A1-A0SK-DX1_xmin457_ymin250_MPP-0.2500", 224, 0),
        ),
        (
            "TCGA-A1-A0SK-DX1_xmin457_ymin250_MPP-0.2500+1[1010].png",
            Place("TCGA-A1-A0SK-DX1", 457, 250),  # which of that corner's, nobody knows
        ),
        ("0001.png", None),
        ("TCGA-A1-A0SK-01Z-00-DX1.svs", None),
    ],
)
def test_a_name_may_tell_the_place(name, place):
    assert find_place(name) == place
