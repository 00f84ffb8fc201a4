"""The pages of a report, and all that is written beside them."""
