"""Names that stand for a checkpoint which no folder and no hub holds."""

TINY = "tiny"
"""Random weights, made when they are loaded: everything but the words of the answers is real."""
