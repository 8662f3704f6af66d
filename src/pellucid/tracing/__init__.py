"""The tape: every number of a run, and the terms that add up to it. Takes modules and tensors."""
