"""The viewer in the browser: look at finished maps over their slides, and correct them.

It reads the outputs of runs and writes only `corrections/`; see `corrections.py` for the format.
The server needs the extra `view`; its modules are imported on demand.
"""

from wsiseg.view.collection import Entry, Run, open_run

__all__ = ["Entry", "Run", "open_run"]
