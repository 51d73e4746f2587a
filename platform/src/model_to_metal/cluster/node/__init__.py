"""What runs inside the node: its first process (`python -m model_to_metal.cluster.node`), and what it starts."""
