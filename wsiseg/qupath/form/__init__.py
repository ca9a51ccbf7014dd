"""What QuPath takes: documents, members and shapes of GeoJSON, and what is found wrong."""
