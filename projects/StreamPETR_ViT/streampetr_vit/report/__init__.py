"""The HTML report of a run: `from_run` collects, `page` writes."""
