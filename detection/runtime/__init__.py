"""The process: which one it is, its memory, its progress, its tracking."""
