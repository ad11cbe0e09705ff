"""Figures and words: rows in, artefacts out, nothing computed again."""
