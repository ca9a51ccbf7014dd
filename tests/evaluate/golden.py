"""The golden arrays once more, and the small data set that some of them were made from."""

from pathlib import Path

from tests.model.golden import array, asserts, check

__all__ = ["MINI_BCSS", "array", "asserts", "check"]

MINI_BCSS = Path(__file__).parent / "mini_bcss"
