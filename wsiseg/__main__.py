"""The command line, for ``python -m wsiseg`` and ``torchrun -m wsiseg train ...``."""

from wsiseg.cli import app

if __name__ == "__main__":
    app(prog_name="wsiseg")
