"""Questions put to the package, one short script each."""
