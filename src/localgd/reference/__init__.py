"""Exact answers for where pooling is allowed."""
