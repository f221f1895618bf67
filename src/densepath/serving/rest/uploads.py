"""Images in a body, in a form, alone or as base64 in JSON, and the options beside them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from densepath.serving.core.errors import MediaTypeError, RequestError, TooLargeError
from densepath.serving.core.fields import check_known
from densepath.serving.core.service import Service
from densepath.serving.rest.bodies import beside, read_body, read_json
from densepath.serving.rest.options import ClassifyOptions
from densepath.serving.v2.tensors import from_base64

NamedFile = tuple[str, bytes]
# Options in a body, by name.
Found = dict[str, Any]

FORM_FIELDS = tuple(ClassifyOptions.model_fields)
MOST_FIELDS = 100
# Beside `image/…`.
IMAGE_TYPES = ("application/octet-stream", "application/dicom")


async def read_images(request: Request, service: Service) -> tuple[list[NamedFile], Found]:
    """The images of a body, and what it says beside them.

    A form of files, whose other fields are options; an image as it is; or JSON with base64 in
    `images`, whose other keys are options.

    Raises:
        RequestError: there is no image; an option that there is not; or as `read_body`.
        MediaTypeError: a body of another kind.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_image = kind.startswith("image/") or kind in IMAGE_TYPES
    if not is_image and kind not in ("multipart/form-data", "application/json"):
        raise MediaTypeError(
            f"the content type is {kind[:64]!r}; send multipart/form-data with files, an image as "
            'image/jpeg or the like, or application/json: {"images": ["BASE64", …]}.'
        )
    body = await read_body(request, service)
    found: Found = {}
    if kind == "multipart/form-data":
        images, found = await _from_form(request, body, service.settings.max_images)
    elif kind == "application/json":
        images, found = await beside(len(body), _from_json, body)
    else:
        images = [("image", body)] if body else []
    if not images:
        raise RequestError("the request has no image.")
    return images, found


class _InMemory(MultiPartParser):
    """Starlette writes larger parts to a temporary file; the whole body is in memory here.

    Nor does it tell whether the form ended: the parser below it takes half a form for a whole one.
    """

    spool_max_size = 1 << 62
    is_whole = False

    def on_end(self) -> None:
        """Note that the closing boundary was read."""
        self.is_whole = True


async def _from_form(request: Request, body: bytes, most: int) -> tuple[list[NamedFile], Found]:
    """The files of a form, whatever their fields are called, at most so many; the other fields."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemory(request.headers, whole(), max_files=most, max_fields=MOST_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise TooLargeError(
                f"more than the {most} images that one request may have."
            ) from error
        raise RequestError(f"the form cannot be read: {error.message}") from error
    except (KeyError, ValueError, UnicodeError) as error:
        raise RequestError("the form cannot be read: a damaged header of a part.") from error
    try:
        if not parser.is_whole:
            raise RequestError("the form ends before its closing boundary: some of it is missing.")
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        named = [(file.filename or f"image {i}", file) for i, file in enumerate(files)]
        return [(name, await file.read()) for name, file in named], _fields_of(form)
    finally:
        await form.close()


def _fields_of(form: FormData) -> Found:
    """The fields of a form that are no files.

    Raises:
        RequestError: one that is no option, or stands there twice.
    """
    found: Found = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            continue
        try:
            check_known([name], FORM_FIELDS, "option in the form")
        except RequestError as error:
            raise RequestError(f"{error} An image is sent with a file name.") from None
        if name in found:
            raise RequestError(f"{name} stands in the form twice; give it once.")
        found[name] = value
    return found


def _from_json(body: bytes) -> tuple[list[NamedFile], Found]:
    """The images of `{"images": [...]}`: base64 each, or `{"name": ..., "b64": ...}`."""
    values = read_json(body)
    check_known(values, ("images", *FORM_FIELDS), "field of the JSON")
    listed = values.pop("images", None)
    if not isinstance(listed, list):
        raise RequestError('the JSON has no list "images": {"images": ["BASE64", …]}.')
    return [_named(each, f"image {i}") for i, each in enumerate(listed)], values


def _named(value: Any, name: str) -> NamedFile:
    """One image in JSON.

    Raises:
        RequestError: it is not base64.
    """
    text = value
    if isinstance(value, dict):
        check_known(value, ("name", "b64"), f"field of {name}")
        given = value.get("name", name)
        if not isinstance(given, str):
            raise RequestError(f"the name of {name} is {given!r}; it must be a text.")
        name, text = given, value.get("b64")
    try:
        return name, from_base64(text)
    except ValueError:
        raise RequestError(f"{name} is not base64.") from None
