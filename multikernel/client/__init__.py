"""A program's side of a machine: starting a host, asking it, and the pages that are looked at without asking."""
