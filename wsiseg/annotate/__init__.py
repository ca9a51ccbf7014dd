"""The steps in order: one slide, or every slide of a folder or manifest."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from wsiseg.annotate.batch import annotate
from wsiseg.annotate.jobs import Job, OutputTree, plan_jobs
from wsiseg.annotate.records import show_agreement
from wsiseg.annotate.slide import SlideResult, annotate_slide

__all__ = [
    "Job",
    "OutputTree",
    "SlideResult",
    "annotate",
    "annotate_slide",
    "plan_jobs",
    "show_agreement",
]


class _CallableModule(ModuleType):
    """Lets ``wsiseg.annotate(...)`` mean the function even where this module was imported first.

    Importing a submodule binds its name in the package over the function of the same name.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> list[SlideResult]:
        return annotate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
