"""Figures: pure functions of a `Trace`."""
