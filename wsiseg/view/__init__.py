"""The viewer in the browser: finished maps looked at beside their slides, and corrected.

It reads what runs wrote and writes `corrections/` only. `corrections.py` says in which form. The
server needs the extra `view`; nothing here is imported before it is asked for.
"""

from wsiseg.view.collection import Entry, Run, open_run

__all__ = ["Entry", "Run", "open_run"]
