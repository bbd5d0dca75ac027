"""LSMDC: movie clips with one sentence each; a clip of train or val may have several lines.

Three tab-separated files without header, six fields a line: clip id, four times, sentence; quotes
mean nothing. They need an agreement with MPII. Clip ids hold dots, so the id of a file is its name
without the last suffix only. DiffusionRet's extra subset `train_test` is the val file. Source:
docs/specs/datasets.md, section 4.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field

from pipeline.datasets.base import Annotations, Faults
from pipeline.datasets.parts import benchmark
from pipeline.datasets.parts.annotation_files import caption_text, read_lines
from pipeline.datasets.parts.benchmark import AnnotationFile, Benchmark, Collector

_FIELDS = 6
_SOURCE = (
    "https://sites.google.com/site/describingmovies/download (after signing the agreement with"
    " MPII)"
)
_EMCL = (
    "0017_Pianist_00.23.28.872-00.23.34.843",
    "0017_Pianist_00.30.36.767-00.30.38.009",
    "3064_SPARKLE_2012_01.41.07.000-01.41.11.793",
)
_DIFFUSION_RET = (
    *_EMCL,
    "3087_WE_BOUGHT_A_ZOO_01.37.34.502-01.37.39.361",
    "3044_KNOCKED_UP_00.45.19.000-00.45.23.549",
    "3023_DISTRICT_9_01.12.44.778-01.12.48.729",
)
_CENTERCLIP = (  # commented out in the published file
    "1038_The_Great_Gatsby_01.22.15.059-01.22.21.087",
    "0014_Ist_das_Leben_nicht_schoen_01.28.37.413-01.28.53.788",
)


class Options(benchmark.Options):
    train: Path = Field(Path("LSMDC16_annos_training.csv"), description="lines to train on")
    val: Path = Field(
        Path("LSMDC16_annos_val.csv"), description="lines to choose the best epoch on"
    )
    test: Path = Field(
        Path("LSMDC16_challenge_1000_publictect.csv"), description="lines of the final ranking"
    )


class Dataset(Benchmark):
    Options: ClassVar[type[BaseModel]] = Options
    video_source: ClassVar[str] = f"{_SOURCE}; `run lsmdc-fetch` takes the lists of their addresses"
    example: ClassVar[str] = "3086_UGLY_TRUTH_00.23.23.000-00.23.28.886"
    suffix: ClassVar[str] = ".avi"
    excluded: ClassVar[dict[str, tuple[str, ...]]] = {
        "diffusion_ret": _DIFFUSION_RET,
        "emcl": _EMCL,
        "centerclip_broken": _CENTERCLIP,
    }

    def published_counts(self) -> dict[str, tuple[int | None, int | None]]:
        if self.options.exclude:  # how many lines the clips that are left out have is not known
            return {}
        counts = {"train": (None, 101_079), "val": (None, 7408), "test": (1000, 1000)}
        return {split: found for split, found in counts.items() if self.has_published(split)}

    @property
    def file_pattern(self) -> str:
        return f"<clip id>{self.suffix}"

    def files(self) -> dict[str, AnnotationFile]:
        return {
            split: AnnotationFile(
                self.options.root / getattr(self.options, split), f"sentences of {split}", _SOURCE
            )
            for split in ("train", "val", "test")
        }

    def read(self, faults: Faults) -> Annotations:
        collector = Collector()
        for split, file in self.files().items():
            collector.add(split, _read_lines(file.path, faults))
        return collector.annotations


def _read_lines(path: Path, faults: Faults) -> list[tuple[str, str]]:
    """Return (clip id, sentence) of each line."""
    texts = []
    for where, line in read_lines(path):
        fields = line.strip().split("\t")
        if len(fields) != _FIELDS:
            what = (
                f"line with another number of tab-separated fields than {_FIELDS} (a tab in the"
                " sentence, or no tabs?)"
            )
            faults.add(what, f"{len(fields)} ({where})")
        elif faults.check_id(fields[0], where):
            texts.append((fields[0], caption_text(fields[-1], where, faults)))
    return texts
