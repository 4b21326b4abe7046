"""Plays drives through a predictor into sinks, on several processes, and after a kill."""
