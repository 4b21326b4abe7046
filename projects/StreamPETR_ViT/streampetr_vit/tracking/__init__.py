"""Ids of objects: they keep them from moment to moment."""
