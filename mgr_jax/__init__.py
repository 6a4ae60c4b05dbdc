"""Music genre recognition: one small CNN, several features, honest numbers."""
