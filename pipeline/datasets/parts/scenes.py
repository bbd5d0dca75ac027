"""What a demo clip shows: one or two moving shapes on a background, its time reversal, and
sentences that describe it.

A scene is words only; `draw.py` turns it into pictures. Nothing here is random: every choice comes
from a `Chooser`, which is a hash of a seed and a key, so that a corpus is the same on every machine
and any Python.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

SHAPES = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring", "hoop"),
    "cross": ("cross",),
}
COLOURS = {name: (name,) for name in ("red", "green", "blue", "yellow", "pink", "white")}
SIZES = {"small": ("small", "little"), "large": ("large", "big")}
BACKGROUNDS = {name: (name,) for name in ("black", "grey", "striped", "checkered")}
# no sentence needs a stop word ("up", "in", "out") to tell a motion from its reversal
MOTIONS = {
    "right": ("moves right", "slides to the right"),
    "left": ("moves left", "slides to the left"),
    "down": ("moves downward", "falls"),
    "up": ("moves upward", "rises"),
    "grows": ("grows", "expands"),
    "shrinks": ("shrinks", "contracts"),
    "appears": ("appears", "emerges"),
    "vanishes": ("vanishes", "disappears"),
}
# the first of each pair plays forwards, the second is the first played backwards
TWINS = (("right", "left"), ("down", "up"), ("grows", "shrinks"), ("appears", "vanishes"))
REVERSED = {a: b for pair in TWINS for a, b in (pair, pair[::-1])}
SPLITS = ("train", "val", "test")
_TEMPLATES = (  # (sentence, what stands between a thing and its motion)
    ("{things} on a {background} background", " "),
    ("on a {background} background {things}", " "),
    ("there is {things} on a {background} background", " that "),
    ("the {background} background shows {things}", " that "),
)


class Chooser:
    """Choices that depend on the seed and the key alone, each independent of every other."""

    def __init__(self, *seed: object):
        self._seed = seed

    def below(self, n: int, *key: object) -> int:
        """Return an integer in [0, n); the bias of the modulo is below n / 2**64."""
        name = "/".join(map(str, (*self._seed, *key)))
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % n

    def chance(self, share: float, *key: object) -> bool:
        return self.below(1_000_000, *key) < round(share * 1_000_000)

    def pick(self, options: Sequence, *key: object) -> object:
        return options[self.below(len(options), *key)]

    def shuffle(self, options: Sequence, *key: object) -> list:
        return sorted(options, key=lambda option: self.below(1 << 63, *key, option))


@dataclass(frozen=True)
class DrawnShape:
    """One thing in a scene. lane: where it stays across its direction of motion, in hundredths of
    the short side from the centre (of a shape that does not travel: in both directions).
    """

    colour: str
    kind: str
    size: str
    motion: str
    lane: int = 0


@dataclass(frozen=True)
class Scene:
    """Shapes in the order they are drawn (the last lies on top), on one background."""

    shapes: tuple[DrawnShape, ...]
    background: str

    @property
    def reversed(self) -> "Scene":
        """The same scene played backwards."""
        return replace(
            self, shapes=tuple(replace(s, motion=REVERSED[s.motion]) for s in self.shapes)
        )

    @property
    def description(self) -> tuple:
        """All that a sentence says: equal for two scenes that no sentence can tell apart."""
        return self.background, *sorted((s.colour, s.kind, s.size, s.motion) for s in self.shapes)

    @property
    def attributes(self) -> dict[str, str]:
        """Named facts for the report: colour, shape, size, motion, background; second_... for the
        second shape.
        """
        facts = {"background": self.background}
        for prefix, shape in zip(("", "second_"), self.shapes, strict=False):
            values = {
                "colour": shape.colour,
                "shape": shape.kind,
                "size": shape.size,
                "motion": shape.motion,
            }
            facts |= {prefix + name: value for name, value in values.items()}
        return facts


def held_out(choose: Chooser) -> dict[str, list[tuple[str, str, tuple[str, str]]]]:
    """Combinations (colour, kind, twin motions) of each split, disjoint, each list in an order of
    its own.

    A Latin rule over shuffled positions: every colour, kind and motion occurs equally often in each
    split, and train has four of six parts.
    """
    colours, kinds = (
        choose.shuffle(list(COLOURS), "colours"),
        choose.shuffle(list(SHAPES), "kinds"),
    )
    motions = choose.shuffle(TWINS, "motions")
    parts = {split: [] for split in SPLITS}
    for (c, colour), (k, kind), (m, motion) in product(
        enumerate(colours), enumerate(kinds), enumerate(motions)
    ):
        split = {0: "test", 1: "val"}.get((c + k + m) % len(colours), "train")
        parts[split].append((colour, kind, motion))
    return {split: choose.shuffle(part, "order", split) for split, part in parts.items()}


def compose(choose: Chooser, combinations: list, first: int, two: bool) -> Scene:
    """Return a scene around `combinations[first]`, with a second shape of another colour and kind
    when `two`.
    """
    background = choose.pick(list(BACKGROUNDS), "background")
    chosen = [combinations[first % len(combinations)]]
    if two:
        others = [c for c in combinations if c[0] != chosen[0][0] and c[1] != chosen[0][1]]
        chosen.append(choose.pick(others, "second"))
    sides = choose.shuffle((-24, 24), "sides") if two else [choose.below(31, "lane") - 15]
    shapes = [
        DrawnShape(
            colour,
            kind,
            choose.pick(list(SIZES), "size", n),
            motions[choose.below(2, "direction", n)],
            lane,
        )
        for n, ((colour, kind, motions), lane) in enumerate(zip(chosen, sides, strict=True))
    ]
    return Scene(tuple(shapes), background)


def captions(scene: Scene, n: int, choose: Chooser) -> list[str]:
    """`n` different sentences about a scene: synonyms and word order vary, what they say does
    not.
    """
    found: dict[str, None] = {}
    start, attempt = choose.below(len(_TEMPLATES), "template"), 0
    while len(found) < n:
        found[_sentence(scene, (start + attempt) % len(_TEMPLATES), choose, attempt)] = None
        attempt += 1
    return list(found)


def _sentence(scene: Scene, template: int, choose: Chooser, attempt: int) -> str:
    def word(table: dict[str, tuple[str, ...]], name: str, *key: object) -> str:
        return choose.pick(table[name], name, attempt, *key)

    frame, link = _TEMPLATES[template]
    clauses = []
    for n, shape in enumerate(scene.shapes):
        size, colour = word(SIZES, shape.size, n), word(COLOURS, shape.colour, n)
        thing = f"a {size} {colour} {word(SHAPES, shape.kind, n)}"
        clauses.append(f"{thing}{link}{word(MOTIONS, shape.motion, n)}")
    things = " and ".join(choose.shuffle(clauses, "order", attempt))
    return frame.format(things=things, background=word(BACKGROUNDS, scene.background))
