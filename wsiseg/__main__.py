"""``python -m wsiseg``, and ``torchrun -m wsiseg train ...``: the command line."""

from wsiseg.cli import app

if __name__ == "__main__":
    app(prog_name="wsiseg")
