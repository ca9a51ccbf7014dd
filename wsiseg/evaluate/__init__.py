"""Evaluate models where masks are known: protocols, scores, intervals, tables, pictures."""

from wsiseg.evaluate.bootstrap import Intervals, bootstrap_intervals
from wsiseg.evaluate.checkpoint import evaluate_checkpoint
from wsiseg.evaluate.compare import format_comparison, load_published
from wsiseg.evaluate.figures import write_figures
from wsiseg.evaluate.paired import Difference, compare_pair
from wsiseg.evaluate.patches import MaskedPatches, load_masked_patches
from wsiseg.evaluate.predictions import evaluate_predictions
from wsiseg.evaluate.report import format_table, write_report
from wsiseg.evaluate.run import Evaluation, Scored, evaluate_model
from wsiseg.evaluate.scores import Scores, confusion_matrix, score
from wsiseg.evaluate.slides import MapScores, evaluate_slides
from wsiseg.evaluate.slides_table import describe_slides, format_slides, write_slides
from wsiseg.evaluate.validate import MaskScore

__all__ = [
    "Difference",
    "Evaluation",
    "Intervals",
    "MapScores",
    "MaskScore",
    "MaskedPatches",
    "Scored",
    "Scores",
    "bootstrap_intervals",
    "compare_pair",
    "confusion_matrix",
    "describe_slides",
    "evaluate_checkpoint",
    "evaluate_model",
    "evaluate_predictions",
    "evaluate_slides",
    "format_comparison",
    "format_slides",
    "format_table",
    "load_masked_patches",
    "load_published",
    "score",
    "write_figures",
    "write_report",
    "write_slides",
]
