"""Shared memory and what travels beside it: memory objects, rings, doorbells, status pages, channels."""
