"""Many nodes at once: those of one shape as one stack, and what they report as arrays."""
