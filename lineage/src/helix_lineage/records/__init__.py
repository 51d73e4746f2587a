"""What made what: the chain of records, and the content-addressed store that holds it."""
