"""What each DVC stage does: from the parameters and the files of the stages before it to its own files."""
