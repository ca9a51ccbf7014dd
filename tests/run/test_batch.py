import pytest

from wsiseg.run import batch


@pytest.mark.parametrize("fails", ["to close", "to open"])
def test_an_executor_that_cannot_be_replaced_ends_no_batch(monkeypatch, fails):
    """Its error was no row of a slide, but the end of all."""
    monkeypatch.setattr(batch, "is_alive", lambda executor: False)

    def fail(*_):
        raise OSError("too many open files")

    with batch._Pool("threads", 1) as pool:
        before = pool.executor
        if fails == "to close":
            pool._stack.callback(fail)
        else:
            monkeypatch.setattr(pool, "_open", fail)
        pool.renew(before)
        if fails == "to close":
            assert pool.lost == ""
            assert pool.executor is not before
            assert pool.executor.submit(int).result(60) == 0
        else:
            assert pool.lost == "no executor starts again: OSError: too many open files"
