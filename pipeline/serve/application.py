"""The page and the JSON API over a shelf of indexes.

Addresses name videos by id and indexes by name, never by path: nothing is served that is not in an
index. Every answer carries a policy that lets a browser load nothing from anywhere else.
"""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import FastAPI, File, HTTPException, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipeline import __version__
from pipeline.errors import ConfigError, TvrError
from pipeline.pages.render import STATIC, render
from pipeline.search.answers import Answers, VideoAnswer, span_words, tie_words
from pipeline.search.question import Part
from pipeline.serve.limits import Rate, TooMany, receive
from pipeline.serve.pictures import Stills
from pipeline.serve.query import question
from pipeline.serve.shelf import Filters, Shelf
from pipeline.serve.uploads import understood

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MOST_TOP = 200
_MOST_VIDEOS = 20  # that one question names
# that answer: more of them only wait for each other, and an early question would be served late
_THREADS = 8
_FIELDS = 64 << 10  # bytes of an upload beside the file

IndexName = Annotated[str, Query(description="name of an index; default: the first")]
VideoId = Annotated[str, Query(max_length=4096, description="id of a video of the index")]
Ids = Annotated[Sequence[str], Query(max_length=_MOST_VIDEOS, description="ids of videos")]
Top = Annotated[int, Query(ge=1, le=_MOST_TOP, description="answers")]
Score = Annotated[float | None, Query(allow_inf_nan=False, description="answers of this or more")]
Glob = Annotated[str, Query(max_length=512, description="only videos whose path fits this")]
PerVideo = Annotated[int, Query(ge=0, description="answers per video at most, 0: any number")]
Seconds = Annotated[float, Query(ge=0, allow_inf_nan=False, description="seconds in the video")]
End = Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="end, seconds")]


def application(
    shelf: Shelf, hosts: list[str], upload_bytes: int = 64 << 20, uploads_a_minute: int = 20
) -> FastAPI:
    """Return the application that serves these indexes to requests for these host names ("*":
    any).
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield

    app = FastAPI(
        title="tvrkit", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _guard(app, upload_bytes)
    _add_pages(app, shelf)
    _add_questions(app, shelf)
    _add_uploads(app, shelf, upload_bytes, Rate(uploads_a_minute))
    _add_videos(app, shelf)
    return app


def _chosen(shelf: Shelf, name: str) -> str:
    """Return the name of the index that is asked for. Raises HTTPException 404 if there is none."""
    name = name or shelf.names[0]
    if name not in shelf.names:
        raise HTTPException(404, f"there is no index called {name[:80]}")
    return name


def _guard(app: FastAPI, upload_bytes: int) -> None:
    """Headers of every answer, the size of what may come in, and errors as JSON."""

    @app.middleware("http")
    async def guarded(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = _refusal(request, upload_bytes) or await call(request)
        for key, value in _HEADERS.items():
            response.headers.setdefault(key, value)
        return response

    @app.exception_handler(TvrError)
    async def refused(_request: Request, error: TvrError) -> JSONResponse:
        status = 400 if isinstance(error, ConfigError) else 422
        return JSONResponse({"error": error.what, "fix": error.fix}, status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = first["loc"][-1]
        return JSONResponse({"error": f"{field}: {first['msg']}", "fix": "See /api."}, 422)

    @app.exception_handler(TooMany)
    async def too_many(_request: Request, error: TooMany) -> JSONResponse:
        wait = str(int(error.seconds) + 1)
        return JSONResponse({"error": "too many uploads"}, 429, {"Retry-After": wait})


def _refusal(request: Request, upload_bytes: int) -> Response | None:
    """Return the answer to a request whose body is not read, because its length is too large or
    unsaid.

    A body in chunks says no length, and would be stored to its end before anything counts it.
    """
    length = request.headers.get("content-length", "" if request.method == "POST" else "0")
    if not length.isdigit() or "transfer-encoding" in request.headers:
        return JSONResponse({"error": "say how long the upload is"}, 411)
    if int(length) > upload_bytes + _FIELDS:
        return JSONResponse({"error": f"more than {upload_bytes:,} bytes"}, 413)
    return None


def _add_pages(app: FastAPI, shelf: Shelf) -> None:
    """What a person opens: the search page and the reference of the API."""

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        described = {name: shelf.describe(name) for name in shelf.names}
        return render("search", title="tvrkit: search videos", indexes=described)

    @app.get("/api", response_class=HTMLResponse, include_in_schema=False)
    def reference() -> str:
        return render("api", title="tvrkit: API", paths=app.openapi()["paths"])


def _add_questions(app: FastAPI, shelf: Shelf) -> None:
    """Questions in words and by videos of the index."""

    @app.get("/api/health")
    def health() -> dict:
        """Return whether the server answers, and what it serves."""
        counts = {name: shelf.store(name) for name in shelf.names}
        indexes = {n: {"videos": s.n_videos, "windows": s.rows} for n, s in counts.items()}
        return {"status": "ok", "version": __version__, "indexes": indexes}

    @app.get("/api/search")
    def search(
        q: Annotated[str, Query(description='a sentence; or "2:a dog" - "fruit"')] = "",
        like: Ids = (),
        unlike: Ids = (),
        index: IndexName = "",
        top: Top = 20,
        min_score: Score = None,
        path: Glob = "",
        per_video: PerVideo = 0,
    ) -> dict:
        """Ranked moments for a sentence, and for videos that are wanted or not."""
        name = _chosen(shelf, index)
        for video_id in [*like, *unlike]:
            if not shelf.places(name, video_id):
                raise HTTPException(404, f"there is no video {video_id[:80]!r}")
        parts = question(q, like, unlike)
        answers, unknown = shelf.search(name, parts, Filters(top, min_score, path, per_video))
        return _plain(name, answers, unknown)

    @app.get("/api/similar")
    def similar(
        video: VideoId, index: IndexName = "", top: Top = 20, per_video: PerVideo = 1
    ) -> dict:
        """Videos like one of the index."""
        name = _chosen(shelf, index)
        if not shelf.places(name, video):
            raise HTTPException(404, f"there is no video {video[:80]!r}")
        filters = Filters(top, per_video=per_video)
        return _plain(name, shelf.search(name, [Part("video", video)], filters)[0], [])


def _add_uploads(app: FastAPI, shelf: Shelf, upload_bytes: int, rate: Rate) -> None:
    """Questions by a clip or a picture that is sent along."""

    @app.post("/api/similar")
    def similar_upload(
        request: Request,
        file: Annotated[UploadFile, File(description="a clip or a picture")],
        index: IndexName = "",
        top: Top = 20,
        per_video: PerVideo = 1,
    ) -> dict:
        """Videos like a clip or a picture that is sent along."""
        name = _chosen(shelf, index)
        rate.take(request.client.host if request.client else "")
        with tempfile.TemporaryDirectory(prefix="tvrkit-upload-") as folder:
            upload = Path(folder) / "upload"
            if not receive(file.file, upload, upload_bytes):
                raise HTTPException(413, f"more than {upload_bytes:,} bytes")
            with understood(upload) as part:
                filters = Filters(top, per_video=per_video)
                return _plain(name, shelf.search(name, [part], filters)[0], [])


def _add_videos(app: FastAPI, shelf: Shelf) -> None:
    """What an index knows of its videos, their films, and pictures of their moments."""
    pictures = Stills()

    @app.get("/api/videos/{video_id:path}")
    def video(video_id: str, index: IndexName = "") -> dict:
        """Return what the index holds of a video."""
        name = _chosen(shelf, index)
        places = shelf.places(name, video_id)
        if not places:
            raise HTTPException(404, "there is no such video")
        windows = [{"start": place.start, "end": place.end} for place in places]
        is_there = shelf.file(name, video_id) is not None
        return {"video": video_id, "index": name, "is_there": is_there, "windows": windows}

    @app.get("/film")
    def film(video: VideoId, index: IndexName = "") -> FileResponse:
        """Return the file of a video, in parts as a player asks for them (HTTP ranges)."""
        path = shelf.file(_chosen(shelf, index), video)
        if path is None:
            raise HTTPException(404, "the file of this video is not there")
        return FileResponse(path, headers={"Cache-Control": "private, max-age=60"})

    @app.get("/still")
    def still(
        video: VideoId, start: Seconds = 0.0, end: End = None, index: IndexName = ""
    ) -> Response:
        """Return a picture (JPEG) of the middle of a moment."""
        path = shelf.file(_chosen(shelf, index), video)
        picture = pictures.of(path, start, end) if path else None
        if picture is None:
            raise HTTPException(404, "there is no picture of this moment")
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "max-age=600"})


def _plain(name: str, answers: Answers, unknown: list[str]) -> dict:
    return {
        "index": name,
        "searched": answers.searched,
        "unknown_words": unknown,
        "ties": tie_words(answers.answers),
        "answers": [_moment(answer) for answer in answers],
    }


def _moment(answer: VideoAnswer) -> dict:
    return answer.plain() | {"span": span_words(answer)}
