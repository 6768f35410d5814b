"""Side-by-side timings, each against a named peer."""
