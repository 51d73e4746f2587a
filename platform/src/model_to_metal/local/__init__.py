"""Helix on one machine: workspace, container, directory, demo, doctor."""
