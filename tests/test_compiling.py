import logging

import numpy as np
from numba import njit

from wsiseg.compiling import compiling_told


def test_compiling_is_told_once_and_only_where_it_happens(caplog):
    twice, thrice = (njit(function) for function in (lambda x: 2 * x, lambda x: 3 * x))
    with caplog.at_level(logging.INFO, logger="wsiseg"):
        with compiling_told():
            assert (twice(2), thrice(2)) == (4, 6)
        assert [record.name for record in caplog.records] == ["wsiseg.compiling"]
        with compiling_told():
            assert (twice(3), thrice(3)) == (6, 9)
        twice(np.float32(1))  # compiled, but nobody listens
    assert len(caplog.records) == 1
