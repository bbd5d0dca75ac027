"""Splits of one's own videos: as a column says, as the name of the file says, else drawn from ids;
and what may leak from one split into another.

Clips of one film share a group, from a column `group`, a pattern on the id, or the file that
moments are cut from. A drawn split never parts a group.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline import log
from pipeline.datasets.parts.caption_columns import SPLIT_NAMES, SPLITS

_NUMBERED = re.compile(r"(.{2,}?)[-_. ]+[0-9][-0-9_.:]*")  # film_012, film-00.23.23-00.23.28
_IN_NAME = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?![a-z])"
)
_EXAMPLES = 3


@dataclass(frozen=True)
class Assigned:
    """{video id: split}, and in words how it came about."""

    split_of: dict[str, str]
    how: str


def assign(
    said: Mapping[str, str],
    groups: Mapping[str, str],
    shares: tuple[float, float],
    file_name: str = "",
) -> Assigned:
    """Return the splits of all captioned videos.

    said: {video id: split or ""}. groups: {video id: its group}. shares: of val and test, where
    nothing says the splits. file_name: a name like MSRVTT_JSFUSION_test.csv says it for all.
    """
    if any(said.values()):
        return Assigned({i: split or "train" for i, split in said.items()}, "as the file says")
    if named := split_in(file_name):
        return Assigned(dict.fromkeys(said, named), f"all {named}, as {file_name} is called")
    val, test = shares
    drawn = _drawn({i: groups.get(i, i) for i in said}, val, test)
    return Assigned(drawn, f"drawn from the ids: {val:.0%} val, {test:.0%} test")


def split_in(file_name: str) -> str:
    """Return the one split that a file name says, else ""."""
    found = {SPLIT_NAMES[word] for word in _IN_NAME.findall(file_name.lower().rpartition(".")[0])}
    return found.pop() if len(found) == 1 else ""


def parted(split_of: Mapping[str, str], groups: Mapping[str, str]) -> list[str]:
    """Notes on groups, or clips that look cut from one film, that lie in several splits."""
    if said := _across({i: groups[i] for i in split_of if i in groups}, split_of):
        return [
            _note("groups lie in several splits", said, "the same film is trained and tested on")
        ]
    looks = {i: found[1] for i in split_of if (found := _NUMBERED.fullmatch(i))}
    looks = {i: film for i, film in looks.items() if i not in groups}
    films = _across(looks, split_of)
    if len(films) < 2 or len(set(looks.values())) < 2:
        return []
    advice = "a column `group`, or `group_pattern`, keeps clips of one film together"
    return [_note("films, by the names of their clips, lie in several splits", films, advice)]


def _note(what: str, found: dict[str, list[str]], advice: str) -> str:
    some = list(found.items())[:_EXAMPLES]
    examples = "; ".join(f"{log.plain(name)}: {', '.join(splits)}" for name, splits in some)
    return f"{len(found):,} {what} ({examples}{'; ...' * (len(found) > _EXAMPLES)}): {advice}"


def _across(groups: Mapping[str, str], split_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Return {group: its splits} of those that have more than one."""
    splits: dict[str, set[str]] = {}
    for video_id, group in groups.items():
        splits.setdefault(group, set()).add(split_of[video_id])
    order = {split: n for n, split in enumerate(SPLITS)}
    return {g: sorted(s, key=lambda x: order.get(x, 9)) for g, s in splits.items() if len(s) > 1}


def _drawn(groups: Mapping[str, str], val: float, test: float) -> dict[str, str]:
    """Return a group's place on the line from 0 to 1 decides, so that videos may be added without
    moving others. A share that would be empty gets the group next to it.
    """
    places = {group: _place(group) for group in groups.values()}
    made = {
        group: "test" if place < test else "val" if place < test + val else "train"
        for group, place in places.items()
    }
    for split, share in (("test", test), ("val", val)):
        rest = sorted((g for g in made if made[g] == "train"), key=places.__getitem__)
        if share and split not in made.values() and len(rest) > 1:
            made[rest[0]] = split
    return {video_id: made[group] for video_id, group in groups.items()}


def _place(group: str) -> float:
    return int.from_bytes(_digest(group)[:8]) / 2**64


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def grouped(video_ids: Iterable[str], pattern: str | None) -> dict[str, str]:
    """Return {video id: the part that the pattern finds}, of ids in which it finds something: its
    first bracket, or all of it.
    """
    if not pattern:
        return {}
    found = {video_id: re.search(pattern, video_id) for video_id in video_ids}
    return {i: hit[1] if hit.re.groups else hit[0] for i, hit in found.items() if hit}
