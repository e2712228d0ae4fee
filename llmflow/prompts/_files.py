"""Turning paths, addresses and bytes into `File`s."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote_to_bytes, urlsplit

from llmflow.errors import DefinitionError
from llmflow.messages import File

__all__ = ["as_files", "media_type_of"]

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_SPELLINGS = {"audio/x-wav": "audio/wav", "audio/mp4a-latm": "audio/mp4", "image/jpg": "image/jpeg"}
_WELCOME = ("image/", "audio/", "application/pdf")
_HINT = "Write File(media_type=..., data=...) to say what it is, or put text into the prompt itself."


def as_files(files: object) -> tuple[File, ...]:
    """Return the files of a prompt; one file may stand without a list around it.

    Raises:
        DefinitionError: For a missing file, or one whose type is unknown.
    """
    if isinstance(files, str | bytes | bytearray | PathLike | File) or not isinstance(files, Iterable):
        return (_as_file(files),)
    return tuple(_as_file(item) for item in cast("Iterable[object]", files))


def media_type_of(data: bytes) -> str | None:
    """Return the media type that the first bytes of a file tell, None when they tell none."""
    for magic, media_type in _MAGIC:
        if data.startswith(magic):
            return media_type
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp" and data[8:11] == b"M4A":
        return "audio/mp4"
    return None


def _as_file(item: Any) -> File:
    if isinstance(item, File):
        return item
    if isinstance(item, bytes | bytearray):
        return _from_bytes(bytes(item))
    if isinstance(item, PathLike):
        return _from_path(Path(cast("PathLike[str]", item)))
    if isinstance(item, str):
        return _from_text(item)
    if hasattr(item, "media_type") and hasattr(item, "source"):
        return _from_instructor(item)
    msg = f"prompt(files=...) takes paths, https:// addresses, bytes and File, got {type(item).__name__}"
    raise DefinitionError(msg)


def _from_bytes(data: bytes) -> File:
    media_type = media_type_of(data)
    if media_type is None:
        what = "bytes that are no image, sound or PDF known to llmflow"
        raise _unknown(what)
    return File(media_type=media_type, data=data)


def _from_path(path: Path) -> File:
    try:
        data = path.expanduser().read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"cannot read the file {_short(str(path))!r} of a prompt: {reason}"
        raise DefinitionError(msg) from error
    media_type = media_type_of(data) or _by_name(path.name)
    if media_type is None:
        what = f"the file {str(path)!r}, which is no image, sound or PDF known to llmflow"
        raise _unknown(what)
    return File(media_type=media_type, data=data, name=path.name)


def _from_text(text: str) -> File:
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() == "data":
        return _from_data_address(rest)
    if rest.startswith("//"):
        return _from_address(text, scheme.lower())
    return _from_path(Path(text))


def _from_address(url: str, scheme: str) -> File:
    if scheme != "https":
        msg = f"the file address {_short(url)!r} of a prompt is not https://; providers fetch only those"
        raise DefinitionError(msg)
    name = Path(urlsplit(url).path).name
    media_type = _by_name(name)
    if media_type is None:
        what = f"the address {_short(url)!r}, whose name does not tell its type"
        raise _unknown(what, "url")
    return File(media_type=media_type, url=url, name=name)


def _from_data_address(rest: str) -> File:
    header, comma, body = rest.partition(",")
    media_type, *attributes = header.split(";")
    if not comma or not media_type:
        msg = "a data: address of a prompt is not of the form data:<media type>;base64,<content>"
        raise DefinitionError(msg)
    data = _decoded(body) if "base64" in attributes else unquote_to_bytes(body)
    return File(media_type=media_type, data=data)


def _from_instructor(item: Any) -> File:
    """Take instructor's `Image`, `Audio` and `PDF`: base64 in `data`, else an address or a path in `source`."""
    data: object = getattr(item, "data", None)
    if isinstance(data, str):
        return File(media_type=item.media_type, data=_decoded(data.partition(";base64,")[2] or data))
    if isinstance(data, bytes):
        return File(media_type=item.media_type, data=data)
    source = item.source
    if isinstance(source, str) and source.startswith("https://") and item.media_type:
        return File(media_type=item.media_type, url=source)
    return _as_file(source)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        msg = "a file of a prompt is not valid base64"
        raise DefinitionError(msg) from error


def _by_name(name: str) -> str | None:
    """Guess from the suffix; only what models take counts, since a text file belongs into the prompt."""
    guess = mimetypes.guess_type(name)[0]
    guess = _SPELLINGS.get(guess, guess) if guess else None
    return guess if guess and guess.startswith(_WELCOME) else None


def _unknown(what: str, field: str = "data") -> DefinitionError:
    error = DefinitionError(f"prompt(files=...) holds {what}")
    error.add_note(_HINT.replace("data=", f"{field}="))
    return error


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}…"  # noqa: PLR2004
