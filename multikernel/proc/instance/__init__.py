"""The leaves of one instance, a module each: `instances/NAME/...`."""
