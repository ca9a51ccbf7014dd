"""The command line: each command consists of its options and one call."""

from wsiseg.cli import (  # isort: skip  # the order of `--help`
    steps,
    view,
    learn,
    distill,
    loop,
    score,
    checks,
    model,
)
from wsiseg.cli.app import app

__all__ = ["app", "checks", "distill", "learn", "loop", "model", "score", "steps", "view"]
