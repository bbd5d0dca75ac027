"""Small data sets in the published layouts, written by the tests themselves."""

import json
import pickle
from pathlib import Path

CLIPS = ("-4wsuPCjDBc_5_15", "-7KMZQEsJW4_205_208", "_0nX-El-ySo_83_93")
LSMDC = "{0}\t00.23.23.000\t00.23.28.886\t00.23.23.000\t00.23.28.886\t{1}"


def write(path: Path, content: object) -> Path:
    """Text as UTF-8, bytes as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def msvd(root: Path) -> Path:
    """Three clips with 3, 2 and 4 captions, in a pickle as Python 2 wrote it; each clip is a
    split.
    """
    counts = dict(zip(CLIPS, (3, 2, 4), strict=True))
    value = {
        clip: [["a", "caption", str(n)] for n in range(count)] for clip, count in counts.items()
    }
    write(root / "raw-captions.pkl", pickle.dumps(value, 2))
    for split, clip in zip(("train", "val", "test"), CLIPS, strict=True):
        write(root / f"{split}_list.txt", clip)
    return root


def msrvtt(root: Path, n: int = 8, split: str = "9k") -> Path:
    """Videos 0 to n-1 with two captions each; the last two are the test."""
    sentences = [
        {"caption": f"caption {m} of {i}", "video_id": f"video{i}"}
        for i in range(n)
        for m in range(2)
    ]
    write(root / "MSRVTT_data.json", {"sentences": sentences, "videos": []})
    write(
        root / f"MSRVTT_train.{split}.csv",
        "video_id\n" + "".join(f"video{i}\n" for i in range(n - 2)),
    )
    rows = "".join(f"ret{i},msr{i},video{i},a test of {i}\n" for i in range(n - 2, n))
    write(root / "MSRVTT_JSFUSION_test.csv", f"key,vid_key,video_id,sentence\n{rows}")
    return root


def lsmdc(root: Path, *train: str) -> Path:
    """Clips whose ids hold dots; `train`: further lines."""
    clip = "3086_UGLY_TRUTH_00.23.23.000-00.23.28.886"
    lines = [LSMDC.format(clip, "SOMEONE smiles."), LSMDC.format(clip, 'He says "no".'), *train]
    write(root / "LSMDC16_annos_training.csv", "\n".join(lines))
    write(
        root / "LSMDC16_annos_val.csv", LSMDC.format("0001_A_00.00.01.000-00.00.02.000", "A dog.")
    )
    write(
        root / "LSMDC16_challenge_1000_publictect.csv",
        LSMDC.format("1001_B_00.00.01.000-00.00.02.000", "A cat."),
    )
    return root


def activitynet(root: Path) -> Path:
    """Two training videos, of 40 listed ids one has no captions; one test video; an id that begins
    with v_ itself.
    """
    train = {
        "v_v_abc": {
            "duration": 82.73,
            "timestamps": [[0, 1], [1, 2]],
            "sentences": ["One.", " Two."],
        },
        **{
            f"v_{i:011d}": {"duration": 9, "timestamps": [[0, 9]], "sentences": [f"Video {i}."]}
            for i in range(38)
        },
    }
    write(root / "train.json", train)
    write(
        root / "val_1.json",
        {"v_--0edUL8zmA": {"duration": 1.58, "timestamps": [[0, 1]], "sentences": ["A man."]}},
    )
    write(root / "train_ids.json", [*reversed(train), "v_gone"])
    write(root / "val_ids.json", ["v_--0edUL8zmA"])
    return root


def didemo(root: Path) -> Path:
    """Listed names with @ and a bare dot at the end; descriptions out of order, one of a video that
    is not listed.
    """
    for split, names in {
        "train": ("1@N01_a.3gp", "2@N02_b."),
        "val": ("3@N03_c.mov",),
        "test": ("4.mp4",),
    }.items():
        write(root / f"{split}_list.txt", "\r\n".join(names))
        entries = [
            {"video": name, "description": f"{part} of {name}"}
            for part in ("one", "two")
            for name in names[::-1]
        ]
        write(
            root / f"{split}_data.json",
            [*entries, {"video": "other.mp4", "description": "not listed"}],
        )
    return root


def vatex(root: Path) -> Path:
    """Three clips with two captions each, in DGL's layout."""
    clips = {split: f"{split}Ptf_2VRj_000122_000132" for split in ("train", "val", "test")}
    write(
        root / "ref_captions.json",
        {clip: [f"{clip} one", f"{clip} two"] for clip in clips.values()},
    )
    for split, clip in clips.items():
        write(root / f"{split}_list.txt", f"{clip}\n\n")
    return root


def caption_files(root: Path) -> Path:
    """A collection in the layout of Dual Encoding."""
    for split in ("train", "val", "test"):
        write(
            root / f"TextData/x{split}.caption.txt", f"{split}#0 a film\n{split}#1 the same film\n"
        )
    return root


def folder(root: Path) -> Path:
    """One's own folder with a table."""
    write(root / "a.mp4", b"")
    write(
        root / "captions.csv",
        "video,caption,split\na.mp4,a film,train\nb.mp4,a film,val\nc.mp4,a film,test\n",
    )
    return root


WRITERS = {
    "msvd": msvd,
    "msrvtt": msrvtt,
    "lsmdc": lsmdc,
    "activitynet": activitynet,
    "didemo": didemo,
    "vatex": vatex,
}
ALL = WRITERS | {"caption_files": caption_files, "folder": folder}
