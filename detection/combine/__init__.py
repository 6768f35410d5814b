"""From many scored boxes to few."""
