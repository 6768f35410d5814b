"""Text that people and programs wrote: in UTF-8, with a byte-order mark, or as XML declares."""

import re
from collections.abc import Sequence
from pathlib import Path

from detection.errors import UserError

MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")


def read_text(path: Path) -> str:
    """The text of a file, UTF-8 unless a byte-order mark says UTF-16 (as PowerShell's `>` writes).

    Raises:
        UserError: the file is missing, is no file, or is in another encoding.
    """
    return decoded(path, content_of(path), "utf-8")


def read_xml_text(path: Path) -> str:
    """The text of an XML file in the encoding that it declares, without that declaration.

    (Python's parser knows a few encodings alone, and none of several bytes a character.)

    Raises:
        UserError: as `read_text`; Python may not know the encoding that it declares.
    """
    content = content_of(path)
    declared = DECLARED.match(content)
    text = decoded(path, content, declared[1].decode() if declared else "utf-8")
    return re.sub(r"^\s*<\?xml[^>]*\?>", "", text, count=1)


def content_of(path: Path) -> bytes:
    """The bytes of a file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def decoded(path: Path, content: bytes, encoding: str) -> str:
    """Bytes as text."""
    marked = next((name for mark, name in MARKS.items() if content.startswith(mark)), encoding)
    try:
        return content.decode(marked)
    except LookupError:
        raise UserError(f"{path} declares the encoding {encoding!r}, which is unknown") from None
    except UnicodeError as error:
        place = getattr(error, "start", 0)
        raise UserError(
            f"{path} is not {marked}: byte {place} is no part of it; save it as UTF-8"
        ) from None


def some(items: Sequence[object], most: int = 5) -> str:
    """The first few of many, for a message.

    >>> some([1, 2, 3], most=2)
    '1, 2 and 1 more'
    """
    shown = ", ".join(map(str, items[:most]))
    return shown if len(items) <= most else f"{shown} and {len(items) - most:,} more"
