"""What the larger commands call: the demo, the doctor, and the benches."""
