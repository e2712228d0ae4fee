"""Files of a prompt: paths, addresses, bytes and instructor's media types."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmflow.errors import DefinitionError
from llmflow.messages import File
from llmflow.prompts import Prompt, prompt

PNG = b"\x89PNG\r\n\x1a\n0000"


def files_of(files: Any) -> tuple[File, ...]:
    """Return the files of a prompt."""
    made: Prompt = prompt("look", files=files)
    return made.files


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"GIF87a", "image/gif"),
        (b"RIFF0000WEBPVP8 ", "image/webp"),
        (b"RIFF0000WAVEfmt ", "audio/wav"),
        (b"%PDF-1.7", "application/pdf"),
        (b"OggS", "audio/ogg"),
        (b"fLaC", "audio/flac"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"\x00\x00\x00\x20ftypM4A ", "audio/mp4"),
    ],
)
def test_bytes_tell_their_type(data: bytes, media_type: str) -> None:
    """By their first bytes."""
    assert (File(media_type=media_type, data=data),) == files_of([data])
    assert (File(media_type=media_type, data=data),) == files_of([bytearray(data)])


@pytest.mark.parametrize("data", [b"", b"plain text", b"RIFF0000AVI ", b"\x00\x00\x00\x20ftypisom"])
def test_unknown_bytes_are_refused(data: bytes) -> None:
    """With the way to say what they are."""
    with pytest.raises(DefinitionError, match="bytes that are no image") as caught:
        files_of([data])

    assert "File(media_type=..., data=...)" in caught.value.__notes__[0]


def test_paths_are_read(tmp_path: Path) -> None:
    """As `Path` or as text; the content decides over the suffix."""
    path = tmp_path / "picture.jpg"
    path.write_bytes(PNG)
    expected = File(media_type="image/png", data=PNG, name="picture.jpg")

    assert (expected, expected) == files_of([path, str(path)])


def test_the_suffix_decides_where_the_content_does_not(tmp_path: Path) -> None:
    """Raw audio has no magic number."""
    path = tmp_path / "sound.wav"
    path.write_bytes(b"raw")

    assert (File(media_type="audio/wav", data=b"raw", name="sound.wav"),) == files_of([path])


def test_one_file_needs_no_list(tmp_path: Path) -> None:
    """A path is not taken for a list of letters."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)

    assert files_of([path]) == files_of(str(path)) == files_of(path)
    assert files_of([PNG]) == files_of(PNG)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """With the system's reason."""
    with pytest.raises(DefinitionError, match=r"cannot read the file '.*gone.png' of a prompt: No such file"):
        files_of([tmp_path / "gone.png"])


def test_text_mistaken_for_a_path_is_not_repeated_at_length() -> None:
    """A prompt in the wrong argument is not put into the message as a whole."""
    with pytest.raises(DefinitionError, match="cannot read the file") as caught:
        files_of(["x" * 5000])

    assert len(str(caught.value)) < 250


def test_a_path_with_a_null_byte_is_a_definition_error() -> None:
    """Python's ValueError does not escape."""
    with pytest.raises(DefinitionError, match="cannot read the file"):
        files_of(["a\0b"])


def test_text_files_belong_into_the_prompt(tmp_path: Path) -> None:
    """They are refused with that advice."""
    path = tmp_path / "notes.txt"
    path.write_text("hello")

    with pytest.raises(DefinitionError, match=r"notes\.txt") as caught:
        files_of([path])

    assert "put text into the prompt itself" in caught.value.__notes__[0]


def test_addresses_are_not_fetched() -> None:
    """The provider fetches them; the name tells the type."""
    url = "https://example.com/a/picture.png?size=1"

    assert (File(media_type="image/png", url=url, name="picture.png"),) == files_of([url])


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("https://example.com/picture", "name does not tell its type"),
        ("http://example.com/a.png", "is not https://"),
        ("ftp://example.com/a.png", "is not https://"),
        ("data:image/png", "not of the form data:"),
        ("data:image/png;base64,???", "not valid base64"),
    ],
)
def test_addresses_that_cannot_be_used(url: str, complaint: str) -> None:
    """Each says why."""
    with pytest.raises(DefinitionError, match=complaint):
        files_of([url])


def test_data_addresses_are_decoded() -> None:
    """Base64 and percent-encoded."""
    encoded = base64.b64encode(PNG).decode()

    assert (File(media_type="image/png", data=PNG),) == files_of([f"data:image/png;base64,{encoded}"])
    assert (File(media_type="image/svg+xml", data=b"<svg/>"),) == files_of(["data:image/svg+xml,%3Csvg/%3E"])


@dataclass
class Media:
    """What instructor's Image, Audio and PDF have in common."""

    source: Any
    media_type: str | None = None
    data: Any = None


def test_instructors_media_are_taken(tmp_path: Path) -> None:
    """Base64 data, raw data, an address or a path."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    encoded = base64.b64encode(PNG).decode()
    url = "https://example.com/picture"

    assert (
        File(media_type="image/png", data=PNG),
        File(media_type="image/png", data=PNG),
        File(media_type="image/png", data=PNG),
        File(media_type="image/png", url=url),
        File(media_type="image/png", data=PNG, name="a.png"),
    ) == files_of(
        [
            Media("a", "image/png", encoded),
            Media("a", "image/png", f"data:image/png;base64,{encoded}"),
            Media("a", "image/png", PNG),
            Media(url, "image/png"),
            Media(path),
        ]
    )


def test_instructors_own_image_is_taken() -> None:
    """The real class, not only one like it."""
    multimodal = pytest.importorskip("instructor.processing.multimodal")
    image = multimodal.Image.from_base64(f"data:image/png;base64,{base64.b64encode(PNG).decode()}")

    assert (File(media_type="image/png", data=PNG),) == files_of([image])
