"""Run an application on a socket until a signal ends it."""

import socket

import uvicorn
from fastapi import FastAPI

_GRACE = 3  # seconds for requests under way when a signal comes


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one. Raises OSError if the address is
    taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=256)
    # connections inherit it: else the second part of an answer waits 40 ms for the client's word
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def run(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; requests under way get three seconds."""
    how = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=64 << 10,
    )
    uvicorn.Server(how).run(sockets=[listening])
