"""Figures from the papers, by recipe: shown as differences beside ours where the gallery is the
published one.

Source: the result table and slide 21 of dongYoun2/dual-encoding-system
(docs/specs/dual-encoding.md, section 7), row B: DE with the learning strategies, on the official
test split of MSR-VTT.
"""

FIGURES = {
    "dual_encoding_pp": {
        "videos": 2990,
        "t2v": {"R1": 12.30, "R5": 32.26, "R10": 43.71, "MnR": 116.41},
        "v2t": {"R1": 20.84, "R5": 46.42, "R10": 58.86, "MnR": 43.72},
    },
}


def figures(recipe: str, n_videos: int) -> dict:
    """Return {"t2v": {...}, "v2t": {...}} of a recipe for a gallery of this size; {} where nothing
    like it was published.
    """
    found = FIGURES.get(recipe, {})
    return {side: found[side] for side in ("t2v", "v2t")} if found.get("videos") == n_videos else {}
