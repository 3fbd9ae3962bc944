"""The host kernel: a process of its own that supervises the instances of one machine."""
