"""GeoJSON files read back: as features, and as annotations."""
