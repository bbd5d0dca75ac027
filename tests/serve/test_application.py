"""The JSON API over a real index of real films, by real requests."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="requirements-serve.txt is not installed")

from fastapi.testclient import TestClient

from pipeline.serve.application import application
from pipeline.serve.shelf import Shelf
from tests.serve.collections import HOSTILE, SHORT, index, made
from tests.videos import write


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return made(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(folders: tuple[Path, Path, Path]) -> Iterator[TestClient]:
    app = application(Shelf([folders[2]]), ["testserver"], upload_bytes=1 << 20)
    with TestClient(app) as found:
        yield found


def test_a_sentence_finds_moments_with_their_times(client: TestClient) -> None:
    found = client.get("/api/search", params={"q": "a dog runs", "top": 5}).json()

    first = found["answers"][0]
    assert len(found["answers"]) == 5
    assert first.keys() >= {"rank", "score", "video", "path", "start", "end", "span"}
    assert found["searched"].startswith("3 videos")
    assert [answer["rank"] for answer in found["answers"]] == [1, 2, 3, 4, 5]


def test_filters_and_what_is_not_wanted_count(client: TestClient) -> None:
    asked = {"q": "a dog", "path": "sub/*", "per_video": 1}
    one = client.get("/api/search", params=asked).json()["answers"]
    unlike = client.get("/api/search", params={"q": "a dog", "unlike": "a"}).json()["answers"]
    mixed = client.get("/api/search", params={"q": '"2:a dog" - "fruit"'}).json()["answers"]

    assert [answer["video"] for answer in one] == ["sub/long"]
    assert unlike and mixed


def test_a_video_finds_others_but_not_itself(client: TestClient) -> None:
    found = client.get("/api/similar", params={"video": "sub/long"}).json()["answers"]

    assert {answer["video"] for answer in found} == {"a", HOSTILE}


def test_an_uploaded_clip_and_a_picture_find_videos(
    client: TestClient, folders: tuple[Path, Path, Path]
) -> None:
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(picture, "PNG")
    clip = (folders[0] / "a.mp4").read_bytes()

    for name, data in (("x.mp4", clip), ("x.png", picture.getvalue())):
        reply = client.post("/api/similar", files={"file": (name, data)})
        assert reply.status_code == 200, reply.text
        assert len(reply.json()["answers"]) == 3


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"not a film", 422), (b"#EXTM3U\nfile:///etc/passwd\n", 422), (b"\x00" * (1 << 21), 413)],
    ids=["junk", "playlist", "too large"],
)
def test_uploads_that_are_no_films_are_refused(
    data: bytes, status: int, client: TestClient
) -> None:
    reply = client.post("/api/similar", files={"file": ("x.mp4", data)})

    assert reply.status_code == status
    assert reply.json()["error"]


def test_an_upload_that_does_not_say_its_length_is_refused(client: TestClient) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}

    reply = client.post("/api/similar", content=iter([head, b"a"]), headers=kind)

    assert reply.status_code == 411
    assert reply.json() == {"error": "say how long the upload is"}
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_films_come_in_the_parts_that_are_asked_for(
    client: TestClient, folders: tuple[Path, Path, Path]
) -> None:
    whole = (folders[0] / "a.mp4").read_bytes()

    reply = client.get("/film", params={"video": "a"}, headers={"Range": "bytes=10-19"})

    beyond = client.get("/film", params={"video": "a"}, headers={"Range": "bytes=999999999-"})

    assert reply.status_code == 206
    assert reply.content == whole[10:20]
    assert reply.headers["content-type"] == "video/mp4"
    assert beyond.status_code == 416
    assert client.get("/still", params={"video": "a"}).content.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    "video_id", ["../model/best.pt", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "a.mp4", "nobody", ""]
)
def test_nothing_is_served_that_is_not_in_the_index(video_id: str, client: TestClient) -> None:
    assert client.get("/film", params={"video": video_id}).status_code == 404
    assert client.get("/still", params={"video": video_id}).status_code == 404
    assert client.get(f"/api/videos/{video_id}").status_code == 404
    assert client.get("/static/../../shelf.py").status_code == 404


@pytest.mark.parametrize("q", ["/etc/passwd", "./a.mp4", "~/x.jpg"])
def test_a_path_in_a_question_is_words_whether_it_exists_or_not(q: str, client: TestClient) -> None:
    assert client.get("/api/search", params={"q": q}).status_code == 200


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"q": "a" * 60_000},
        {"q": "a - "},
        {"unlike": "nobody"},
        {"q": "a", "top": 0},
        {"q": "a", "min_score": "nan"},
        {"q": "a", "like": ["a"] * 21},
    ],
)
def test_what_cannot_be_asked_is_said(asked: dict, client: TestClient) -> None:
    reply = client.get("/api/search", params=asked)

    assert reply.status_code in (400, 404, 422)
    said = reply.json().get("error") or reply.json()["detail"]
    assert isinstance(said, str) and len(said) < 300


def test_every_answer_forbids_what_comes_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/api", "/api/health", "/film?video=nobody", "/static/search.js"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy


def test_another_host_name_is_refused(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_too_many_uploads_are_put_off(folders: tuple[Path, Path, Path]) -> None:
    app = application(Shelf([folders[2]]), ["testserver"], uploads_a_minute=1)
    with TestClient(app) as client:
        client.post("/api/similar", files={"file": ("x.mp4", b"no film")})
        reply = client.post("/api/similar", files={"file": ("x.mp4", b"no film")})

    assert reply.status_code == 429
    assert int(reply.headers["Retry-After"]) > 0


def test_an_index_that_was_extended_is_opened_again(tmp_path: Path) -> None:
    videos, model, folder = made(tmp_path)
    with TestClient(application(Shelf([folder]), ["testserver"])) as client:
        before = client.get("/api/health").json()["indexes"]["idx"]["videos"]
        write(videos / "new.mp4", SHORT)
        index(videos, model, folder)
        after = client.get("/api/health").json()["indexes"]["idx"]["videos"]

    assert (before, after) == (3, 4)


def test_a_film_that_is_gone_is_said(tmp_path: Path) -> None:
    videos, _, folder = made(tmp_path)
    (videos / "a.mp4").unlink()
    with TestClient(application(Shelf([folder]), ["testserver"])) as client:
        assert client.get("/film", params={"video": "a"}).status_code == 404
        assert not client.get("/api/videos/a").json()["is_there"]
        assert client.get("/api/search", params={"q": "a dog"}).status_code == 200


def test_an_upload_of_a_bomb_costs_no_memory(client: TestClient) -> None:
    """A picture of 60 kB that stands for 3.6 GB."""
    row = b"\0" + bytes(60_000 // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(60_000)) + packer.flush()
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)), (b"IDAT", data)]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*parts, (b"IEND", b"")]
    )

    reply = client.post("/api/similar", files={"file": ("x.png", file)})

    assert reply.status_code in (400, 413, 422)
    assert reply.json()["error"]


def test_a_collection_that_was_moved_is_played_from_its_new_root(tmp_path: Path) -> None:
    videos, _, folder = made(tmp_path)
    moved = tmp_path / "moved"
    videos.rename(moved)
    (tmp_path / "locked").mkdir(mode=0)

    with TestClient(application(Shelf([folder]), ["testserver"])) as client:
        assert client.get("/film", params={"video": "a"}).status_code == 404
    with TestClient(application(Shelf([folder], moved), ["testserver"])) as client:
        assert client.get("/film", params={"video": "a"}).status_code == 200
        assert client.get("/film", params={"video": "sub/long"}).status_code == 200
