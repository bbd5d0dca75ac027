"""What does not keep a rule of the house yet. These sets only shrink: nothing new belongs here."""

STILL_UNUSED: set[str] = set()

STILL_WITHOUT_SHAPES: set[str] = set()

STILL_SILENT: set[str] = set()

STILL_TWICE: set[str] = set()
