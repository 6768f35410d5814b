"""Published networks, and the reader of published weights."""
