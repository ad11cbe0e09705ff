"""What the pooled model is, and how a model is proved to be near it."""
