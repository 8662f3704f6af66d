"""Anatomies, formulas, comparisons and answers in a terminal, as a page and as a drawing."""
