"""Messages, interrupts and the links that carry them."""
