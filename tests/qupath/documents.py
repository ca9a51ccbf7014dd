"""GeoJSON documents of tests, as files."""

import json
from pathlib import Path


def collect(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def save(folder: Path, document, name: str) -> Path:
    """Write bytes as they are, anything else as JSON."""
    path = folder / name
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return path
