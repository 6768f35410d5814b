"""Numbers that have a range wherever they stand: told at once, before anything is imported."""

from typing import Any

from detection.errors import UserError

POSITIVE = ("lr", "ridge", "c", "epochs", "batch_size", "tol", "num_models")
NOT_NEGATIVE = ("gb", "memory_gb", "weight_decay", "min_steps", "padding_px", "patience")
SHARES = ("momentum", "dropout", "max_iou", "foreground_min_iou", "foreground_fraction")


def check_ranges(content: Any, where: str = "") -> None:
    """Check the numbers of a config by their names.

    >>> check_ranges({"model": {"ridge": 1000, "dropout": 0.5}})

    Raises:
        UserError: one is outside its range; names it.
    """
    if isinstance(content, list):
        for item in content:
            check_ranges(item, where)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        check_ranges(value, f"{where}{key}.")
        rule = broken_rule(key, value)
        if rule:
            raise UserError(f"{where}{key}={value}: it must {rule}")


def broken_rule(name: str, value: Any) -> str:
    """What a number of this name must do and does not; nothing where all is well.

    >>> broken_rule("lr", -1.0), broken_rule("lr", 0.1), broken_rule("dropout", 2)
    ('be more than 0', '', 'lie between 0 and 1')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if name in POSITIVE and not 0 < value < float("inf"):
        return "be more than 0"
    if name in NOT_NEGATIVE and not value >= 0:
        return "be 0 or more"
    return "lie between 0 and 1" if name in SHARES and not 0 <= value <= 1 else ""
