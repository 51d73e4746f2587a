"""How values become bytes, one way only: canonical JSON, typed values, and reading what others can write."""
