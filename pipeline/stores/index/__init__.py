"""Encodings of videos and of windows in them, to be searched."""
