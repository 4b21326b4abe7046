"""nuScenes-format tables: read once, kept as columns, opened by name."""
