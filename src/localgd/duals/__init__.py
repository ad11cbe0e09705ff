"""Vectors and what is proved of them, also where nodes keep some of them back."""
