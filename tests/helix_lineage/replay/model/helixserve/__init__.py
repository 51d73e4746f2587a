"""A model of a few lines that keeps to the replay protocol: the image that these tests build runs it."""
