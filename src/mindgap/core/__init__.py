"""One run: rounds of training, evaluation and acquisition, and what they are keyed by."""
