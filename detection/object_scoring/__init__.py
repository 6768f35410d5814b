"""Localisation from classification scores alone: object scoring, as an ILSVRC poster tells it."""
