"""How fast it is, beside what else there is: `make bench`. Nothing here passes or fails by a time."""
