"""multipart/related bodies (RFC 2387) as WADO-RS sends them, written piece by piece."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flask import Response, stream_with_context


@dataclass(frozen=True)
class Part:
    """One part; its bytes are read when it is sent."""

    content_type: str
    content: Iterable[bytes]
    location: str = ""


def multipart(parts: Iterable[Part], media_type: str, *, status: int = 200) -> Response:
    """Give an answer of several parts.

    Args:
        parts: sent in this order, each one built only when its turn comes.
        media_type: of the parts.
        status: 206 where not everything that was asked for is among them.
    """
    boundary = secrets.token_hex(16)
    content_type = f'multipart/related; type="{media_type}"; boundary={boundary}'
    body = stream_with_context(_body(parts, boundary.encode()))
    return Response(body, status=status, content_type=content_type)


def single(part: Part, *, status: int = 200) -> Response:
    """Give one part as the whole answer."""
    headers = {"Content-Location": part.location} if part.location else {}
    return Response(part.content, status=status, content_type=part.content_type, headers=headers)


def _body(parts: Iterable[Part], boundary: bytes) -> Iterator[bytes]:
    for part in parts:
        head = f"Content-Type: {part.content_type}\r\n"
        if part.location:
            head += f"Content-Location: {part.location}\r\n"
        yield b"--" + boundary + b"\r\n" + head.encode("ascii") + b"\r\n"
        yield from part.content
        yield b"\r\n"
    yield b"--" + boundary + b"--\r\n"
