"""Counts, compute and memory, each one walk over a network's tree of shapes; none of it imports torch."""
