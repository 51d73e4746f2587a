"""That what runs is what was released: every file is checked before the server is ready."""
