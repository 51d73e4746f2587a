"""The stages: each takes frozen records and gives one; none imports another."""
