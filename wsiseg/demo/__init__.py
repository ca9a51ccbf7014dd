"""The demo: synthetic slides with known truth, and a run of everything on them.

>>> from wsiseg.demo import sample_patches, synthesize_slide
>>> truth = synthesize_slide("one.svs", width=12_000, height=9_000, seed=1)  # doctest: +SKIP
>>> csv = sample_patches("one.svs", truth, "patches", count=400, seed=1)  # doctest: +SKIP
"""

from __future__ import annotations

from wsiseg.demo.layout import Truth
from wsiseg.demo.patches import sample_patches
from wsiseg.demo.synthesis import synthesize_slide

__all__ = ["Truth", "sample_patches", "synthesize_slide"]
