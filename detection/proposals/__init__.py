"""Where to look: boxes that may hold an object."""
