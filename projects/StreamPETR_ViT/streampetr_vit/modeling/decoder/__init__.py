"""The decoder: its layers, and how queries look at the image."""
