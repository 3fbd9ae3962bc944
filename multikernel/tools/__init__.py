"""What the larger commands call: the demo, and the doctor."""
