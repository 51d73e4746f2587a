"""What a model's author sees: the contract, tensors, and seeded sampling."""
