"""What is exchangeable in a run, a file a part; each folder has a table of its parts by name."""
