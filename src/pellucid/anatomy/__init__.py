"""How many parameters, how much memory, how much arithmetic: each one walk over a tree of shapes."""
