"""Where runs execute, beside each other and beyond one process; what they will take."""
