"""The version, from where whatever records it may import it."""

__version__ = "0.1.0"
