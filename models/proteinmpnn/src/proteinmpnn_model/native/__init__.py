"""ProteinMPNN by our own kernels (`models/proteinmpnn/kernels`): the runner that its release names."""
