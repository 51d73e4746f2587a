"""The machine underneath: programs, sandboxes, pinned tools, the checkout, the processor."""
