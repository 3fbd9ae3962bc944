"""Longer runs."""
