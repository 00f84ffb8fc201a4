"""What every other folder stands on; it imports none of them."""
