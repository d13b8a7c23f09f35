"""Figures, tables and the paper, made from records alone. Nothing here imports torch."""
