"""Annotations written as GeoJSON, whole or in parts."""
