"""tvrkit: from raw videos to ranked text-video retrieval results."""

import os

__version__ = "0.1.0"

if os.environ.get("TVRKIT_PLUGINS"):  # a worker, or the user: before anything is unpickled
    from pipeline import plugins

    plugins.install()
