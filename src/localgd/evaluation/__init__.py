"""How well a model decides, on rows that stay where they are: counts and sums told in rounds."""
