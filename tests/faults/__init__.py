"""What must be survived, and how: each test kills or stops something for real."""
