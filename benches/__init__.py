"""How fast it is, beside what else there is: `make bench`, `make compare`. Nothing here passes or fails by a time.

What is measured, and how, is `multikernel.tools.bench`, which `multikernel bench` runs for everybody.
"""
