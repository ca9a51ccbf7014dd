"""One round of the annotation loop: from a person's labels to a model with a score."""

from wsiseg.learn.report import Learned, Missed, Round, describe_learned
from wsiseg.learn.run import learn_model

__all__ = ["Learned", "Missed", "Round", "describe_learned", "learn_model"]
