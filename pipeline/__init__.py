"""tvrkit: from raw videos to ranked text-video retrieval results."""

__version__ = "0.1.0"
