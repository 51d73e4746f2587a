"""How one request is answered: turns, items, streams, and the same again at replay."""
