"""A run: the steps in order, on one slide or on every slide of a folder or manifest."""

from wsiseg.run.batch import annotate
from wsiseg.run.jobs import Job, OutputTree, plan_jobs
from wsiseg.run.records import show_agreement
from wsiseg.run.slide import SlideResult, annotate_slide

__all__ = [
    "Job",
    "OutputTree",
    "SlideResult",
    "annotate",
    "annotate_slide",
    "plan_jobs",
    "show_agreement",
]
