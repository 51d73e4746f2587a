"""Many predictions: which there are."""
