"""nuScenes-format data: tables, records, samples, streams, loaders."""
