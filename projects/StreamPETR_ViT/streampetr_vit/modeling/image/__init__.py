"""What is computed from pictures and cameras before the decoder sees them."""
