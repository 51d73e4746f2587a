"""One prediction: where it is logged, what made it, and the receipt that proves it."""
