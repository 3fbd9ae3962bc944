"""Native images: built, booted, and held against those of Python."""
