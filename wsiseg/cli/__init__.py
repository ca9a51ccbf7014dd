"""The command line: each command is its options and one call."""

from wsiseg.cli import steps, view, learn, score, checks, model  # isort: skip  # the order of `--help`
from wsiseg.cli.app import app

__all__ = ["app", "checks", "learn", "model", "score", "steps", "view"]
