"""Measured ratios: what compression costs and gains against the plain model."""
