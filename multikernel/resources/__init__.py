"""What a machine can give away: names, cpus, memory; and what the hardware under it looks like."""
