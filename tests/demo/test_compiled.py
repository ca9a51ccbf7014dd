"""Compiling in another process while the demo trains."""

import pytest

from wsiseg.demo.compiled import compiling_beside


def test_the_other_process_maps_a_small_slide():
    with compiling_beside() as finish:
        assert finish() == 0


def test_it_ends_with_a_demo_that_fails():
    with pytest.raises(KeyboardInterrupt), compiling_beside() as finish:
        raise KeyboardInterrupt
    assert finish() != 0
