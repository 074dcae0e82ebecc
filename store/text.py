"""Text that comes from files, made safe to show."""


def printable(text: str, limit: int = 200) -> str:
    r"""Return `text` with every character that a terminal might act on written as an escape such as \x1b.

    Control and format characters, bidirectional overrides, line separators, unassigned code points and lone
    surrogates are escaped; a byte that was not valid UTF-8 and was decoded with "surrogateescape" shows as that
    byte. More than `limit` characters are cut and end in "…". Square brackets stay: show the result as plain text,
    never as markup.
    """
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(character if character.isprintable() else _escape(ord(character)) for character in shown)
    return shown + "…" if len(text) > limit else shown


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # a byte kept by "surrogateescape"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def inert(text: str) -> str:
    """Return `text` without what GitHub's runner takes for a command wherever in a line of a log it stands."""
    return text.replace("##[", "## [")
