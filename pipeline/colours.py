"""The colours of every picture and curve that the toolkit draws."""

INK, MUTED, LINE, PAPER = "#1d2733", "#66717f", "#e3e7ec", "#ffffff"
BLUE, ORANGE, GREEN, PURPLE = "#24678d", "#d9772f", "#4f8f5b", "#86579c"
# scales of matplotlib from little to much, whose lightness alone tells the order: colour-blind
# readers and grey prints keep it. Lines and dots on white paper; maps over a film
SCALE, HEAT = "viridis_r", "viridis"
OCHRE, RED, SLATE = "#b39a2e", "#b0474a", "#5c6b7a"


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb", 0 to 255 each."""
    return tuple(bytes.fromhex(colour[1:]))
