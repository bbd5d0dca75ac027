"""Which commit this is: of the checkout, or as the package was built."""

import subprocess

from pipeline import registry

_COMMAND = ["describe", "--always", "--dirty", "--exclude=*"]


def commit() -> str:
    """Return the commit, with -dirty behind it where files differ from it; "" if nobody knows."""
    built = registry.ROOT / "COMMIT"
    if built.is_file():
        return built.read_text(encoding="utf-8").strip()
    if not (registry.ROOT / ".git").exists():
        return ""
    try:
        found = subprocess.run(
            ["git", "-C", str(registry.ROOT), *_COMMAND],  # noqa: S607  (the git of the PATH)
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
