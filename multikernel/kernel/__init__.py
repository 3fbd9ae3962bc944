"""The inside of an instance: how it boots, what its image is given, how its end is told."""
