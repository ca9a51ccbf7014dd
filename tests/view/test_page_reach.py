"""How much of the page's JavaScript the tests before this file ran."""

import pytest

from tests.view.conftest import REACHED

LEAST = 0.95


def test_the_tests_of_the_page_reach_nearly_all_of_its_code(request, capsys):
    needed = ("", "_corrections", "_earlier", "_layout", "_more", "_outdated", "_places")
    ran = {nodeid.partition("::")[0].rpartition("/")[2] for nodeid in REACHED}
    if len(REACHED) < 30 or not ran >= {f"test_page{part}.py" for part in needed}:
        pytest.skip("needs all tests of the page to have run before, in one process")
    coverage = request.getfixturevalue("browser").coverage
    coverage.take()
    shares = coverage.shares()
    whole, reached = (sum(column) for column in zip(*shares.values(), strict=True))
    terminal = request.config.get_terminal_writer()
    with capsys.disabled():
        terminal.line()
        for name, (code, run) in (*shares.items(), ("all", (whole, reached))):
            terminal.line(f"{name:24} {run / code:7.1%} of {code:,} characters of code")
    assert reached / whole >= LEAST
