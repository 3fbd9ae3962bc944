"""Images that the tests boot."""
