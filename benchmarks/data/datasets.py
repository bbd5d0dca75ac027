"""How fast annotation sets are read, against the membership test on a list that the published
readers use.

    OMP_NUM_THREADS=1 python benchmarks/data/datasets.py [FOLDER OF THE REAL ANNOTATIONS]

CPU seconds, best of three. Real files where they are given (MSR-VTT, MSVD and VATEX with made-up
captions in the published number, because their caption files are not there), else only those made
here. The other side, for MSR-VTT 9k: `[s for s in sentences if s["video_id"] in train_list]` over
the parsed JSON, timed on 1 % of the sentences.
"""

import json
import pickle
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.datasets.base import open_dataset

DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "data" / "annotations"
LSMDC = (
    "{0}\t00.23.23.000\t00.23.28.886\t00.23.23.000\t00.23.28.886\tSOMEONE looks at a house by the"
    " sea.\n"
)


def main() -> None:
    real = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, CPU"
        " seconds, best of 3"
    )
    print(f"{'data set':<34} {'videos':>8} {'texts':>9} {'read':>8}")
    with tempfile.TemporaryDirectory() as name:
        for label, spec in _specs(Path(name), real):
            _row(label, spec)
        if (Path(name) / "msrvtt").exists():
            ours = _seconds({"type": "msrvtt", "root": str(Path(name) / "msrvtt")})[0]
            theirs = _list_membership(Path(name) / "msrvtt")
            print(
                f"\nMSR-VTT 9k: ours {ours:.2f} s, membership test on a list about {theirs:.0f} s"
            )


def _row(label: str, spec: dict) -> None:
    seconds, annotations = _seconds(spec)
    texts = sum(len(part.caption_ids) for part in annotations.splits.values())
    print(f"{label:<34} {len(annotations.videos):>8,} {texts:>9,} {seconds:>6.2f} s")


def _seconds(spec: dict) -> tuple[float, object]:
    times = []
    for _ in range(3):
        start = time.process_time()
        annotations = open_dataset(spec).load()
        times.append(time.process_time() - start)
    return min(times), annotations


def _specs(work: Path, real: Path) -> list[tuple[str, dict]]:
    lsmdc = work / "lsmdc"
    lsmdc.mkdir()
    counts = {
        "LSMDC16_annos_training": 101_079,
        "LSMDC16_annos_val": 7408,
        "LSMDC16_challenge_1000_publictect": 1000,
    }
    for file, count in counts.items():
        (lsmdc / f"{file}.csv").write_text(
            "".join(LSMDC.format(f"{file}_00.{i}") for i in range(count))
        )
    made = [("LSMDC (made up)", {"type": "lsmdc", "root": str(lsmdc)})]
    return [*made, *_real(work, real)] if real.is_dir() else made


def _real(work: Path, real: Path) -> list[tuple[str, dict]]:
    for name in ("msrvtt", "msvd", "vatex"):
        (work / name).mkdir()
        for path in (real / name).iterdir():
            (work / name / path.name).symlink_to(path)
    sentence = "a man is doing something with an object in a room"
    sentences = [
        {"caption": sentence, "video_id": f"video{i // 20}", "sen_id": i} for i in range(200_000)
    ]
    (work / "msrvtt" / "MSRVTT_data.json").write_text(
        json.dumps({"sentences": sentences, "videos": []})
    )
    for name, file, count in (
        ("msvd", "raw-captions.json", 41),
        ("vatex", "ref_captions.json", 10),
    ):
        ids = _ids_of(real / name)
        (work / name / file).write_text(json.dumps({i: [sentence] * count for i in ids}))
    words = {
        i: [list(map("".join, map(list, sentence.split()))) for _ in range(41)]
        for i in _ids_of(real / "msvd")
    }
    (work / "msvd" / "raw-captions.pkl").write_bytes(
        pickle.dumps(words, 2)
    )  # no word is shared, as in a file once read
    didemo = {
        "type": "didemo",
        "root": str(real / "didemo"),
        "train": "val_data.json",
        "train_list": "val_list.txt",
    }
    paths = {"video_paths": "video_path.json", "only_listed": True, "exclude": ["centerclip"]}
    return [
        ("ActivityNet (real)", {"type": "activitynet", "root": str(real / "activitynet")}),
        (
            "ActivityNet as CenterCLIP (real)",
            {"type": "activitynet", "root": str(real / "activitynet"), **paths},
        ),
        ("DiDeMo val, test (real)", didemo),
        *(
            (
                f"MSR-VTT {s} (real lists)",
                {"type": "msrvtt", "root": str(work / "msrvtt"), "split": s},
            )
            for s in ("9k", "7k", "full", "1k-B")
        ),
        ("MSVD, JSON (real lists)", {"type": "msvd", "root": str(work / "msvd")}),
        (
            "MSVD, pickle (real lists)",
            {"type": "msvd", "root": str(work / "msvd"), "captions": "raw-captions.pkl"},
        ),
        ("VATEX (real lists)", {"type": "vatex", "root": str(work / "vatex")}),
    ]


def _ids_of(folder: Path) -> list[str]:
    """Ids of all lists of a folder."""
    return [i for path in folder.glob("*_list.txt") for i in path.read_text().split()]


def _list_membership(root: Path) -> float:
    ids = (root / "MSRVTT_train.9k.csv").read_text().split()[1:]
    sentences = json.loads((root / "MSRVTT_data.json").read_text())["sentences"][::100]
    start = time.process_time()
    kept = [s for s in sentences if s["video_id"] in ids]
    assert kept
    return 100 * (time.process_time() - start)


if __name__ == "__main__":
    main()
