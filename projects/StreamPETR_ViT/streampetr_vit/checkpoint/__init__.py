"""Reading weights: foreign names in, ours out."""
