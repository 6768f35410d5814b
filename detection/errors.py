"""Errors whose message is all that a user needs: what is wrong, where, and what to do."""


class UserError(Exception):
    """A mistake in what the user gave: an option, a file, an annotation. Exit code 2."""


class TrainingError(Exception):
    """Training cannot go on, through no mistake of form: a loss that is not finite. Exit code 1."""
