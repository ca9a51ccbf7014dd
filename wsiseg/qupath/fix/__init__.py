"""GeoJSON files of others mended, so that QuPath takes them."""
