"""What `densepath serve` is told: which bundles under which names, and every limit."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from densepath.choices import LogFormat, LogLevel, PrecisionRequest
from densepath.errors import OutputError, UsageError

LONGEST_S = 86_400.0  # a day: as good as no limit, and what timers can count
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
TAKEN = ("stats",)  # of GET /v2/models/stats
VERSION = re.compile(r"[1-9][0-9]{0,8}")
FIRST_VERSION = "1"
MEGABYTE = 1_000_000
MOST_BODY_MB = 2000  # a message of gRPC has at most 2 GiB
LEAST_KEY = 16


@dataclass(frozen=True)
class ModelSource:
    """Where a bundle is found, and the name and version that clients know it by.

    Attributes:
        name, version: of requests.
        path: as it was given; links in it are followed at each load, not before.
    """

    name: str
    version: str
    path: Path

    @classmethod
    def parse(cls, text: str) -> ModelSource:
        """The source that `PATH`, `NAME=PATH` or `NAME@VERSION=PATH` means.

        Raises:
            UsageError: a name or version of other characters than clients' addresses bear.
        """
        named, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            named, path = "", text
        if not path:
            raise UsageError(f"{text!r} names no bundle; write NAME=PATH.")
        name, at, version = named.partition("@")
        absolute = Path(path).absolute()
        name = name or _fold(_last_name(absolute))
        version = version if at else FIRST_VERSION
        if not NAME.fullmatch(name):
            raise UsageError(f"the name {name!r} in {text!r} may have letters, digits and . _ -")
        if name in TAKEN:
            raise UsageError(
                f"{name!r} is a part of V2's addresses; name it otherwise: NAME={path}."
            )
        if not VERSION.fullmatch(version):
            raise UsageError(f"the version {version!r} in {text!r} must be a number from 1 on.")
        return cls(name, version, absolute)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def _last_name(path: Path) -> str:
    """The name that was given to the folder: a link's own, not that of what it leads to."""
    return path.resolve().name if path.name == ".." else path.name


def _fold(name: str) -> str:
    """A folder's name as a model's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "model"


def parse_sources(texts: Iterable[str]) -> list[ModelSource]:
    """The sources, none twice.

    Raises:
        UsageError: a wrong one, or two under the same name and version.
    """
    found: dict[tuple[str, str], ModelSource] = {}
    for text in texts:
        source = ModelSource.parse(text)
        other = found.setdefault((source.name, source.version), source)
        if other is not source:
            raise UsageError(
                f"{other.path} and {source.path} would both be {source}; name one of them "
                f"otherwise, as {source.name}@{int(source.version) + 1}={source.path}."
            )
    if not found:
        raise UsageError("name at least one bundle.")
    return list(found.values())


@dataclass(frozen=True)
class Settings:
    """How a server behaves.

    Attributes:
        host, port, grpc_port: where it listens; port 0 is any free one, and no gRPC where
            `grpc_port` is None.
        workers: processes that share the ports.
        engine, precision, threads: as in `densepath.load`; the threads are those of each worker.
        max_batch: images of one run; by default what the engine prefers.
        max_delay_s: how long a batch that is not full waits for images that are being read.
        max_queue: images that are being read, wait or run, of each model; more are refused.
        max_body_bytes: of a request.
        max_images: of a request.
        max_pixels: height × width of an image.
        timeout_s: from the arrival of a request to its answer.
        header_timeout_s, body_timeout_s: for its headers and its body to arrive.
        max_connections: to REST, at once.
        grace_s: for what runs when the server is told to end.
        linger_s: of these, the seconds in which it takes requests still, so that balancers see
            that it is not ready any more.
        api_key: what clients must say; None lets all in.
        allowed_origins: whose pages may use it beside its own, as browsers write origins; `*` for
            all.
        certificate, key: PEM files for TLS.
        log_format: `json` or `text`.
        log_level: the least that is logged: `debug` (health checks, too), `info`, `warning` or
            `error`.
        pages: serve the page at `/`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = 8081
    workers: int = 1
    engine: str = "auto"
    precision: PrecisionRequest = "auto"
    threads: int | None = None
    max_batch: int | None = None
    max_delay_s: float = 0.002
    max_queue: int = 64
    max_body_bytes: int = 32 * MEGABYTE
    max_images: int = 32
    max_pixels: int = 50_000_000
    timeout_s: float = 30.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    max_connections: int = 512
    grace_s: float = 30.0
    linger_s: float = 0.5
    api_key: str | None = None
    allowed_origins: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    log_format: LogFormat = "json"
    log_level: LogLevel = "info"
    pages: bool = True

    def check(self) -> None:
        """Returns when the values can hold together.

        Raises:
            UsageError: they cannot.
        """
        at_least_one = ("workers", "max_batch", "max_queue", "max_images", "max_pixels")
        for name in (*at_least_one, "max_connections", "max_body_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
        self._check_seconds()
        if self.max_images > self.max_queue:
            raise UsageError(
                f"--max-images is {self.max_images}, more than the --max-queue of "
                f"{self.max_queue}: such a request would never be taken."
            )
        self._check_tls()

    def _check_seconds(self) -> None:
        """Returns when every time is one that can pass."""
        positive = {"timeout": self.timeout_s, "header timeout": self.header_timeout_s}
        positive["body timeout"] = self.body_timeout_s
        from_zero = {"grace": self.grace_s, "linger": self.linger_s}
        for name, seconds in (positive | from_zero).items():
            check_number(f"--{name}", seconds, "seconds", LONGEST_S, above_zero=name in positive)
        check_number("--max-delay-ms", self.max_delay_s * 1000, "milliseconds", LONGEST_S * 1000)

    def _check_tls(self) -> None:
        """Returns when TLS is off, or its files belong together."""
        if self.certificate is None and self.key is None:
            return
        if self.certificate is None or self.key is None:
            raise UsageError("TLS takes both --tls-certificate and --tls-key.")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(
                f"{self.certificate} and {self.key} are not a certificate and its key in PEM "
                f"format: {error.strerror or error}."
            ) from error


def check_number(
    option: str, value: float, unit: str, most: float, *, above_zero: bool = False
) -> float:
    """The number, once it is one: `inf` and `nan` pass other checks, and stop nothing or all.

    Raises:
        UsageError: not finite, negative, too large, or 0 where it must be above.
    """
    if isfinite(value) and 0 <= value <= most and (value > 0 or not above_zero):
        return value
    least = "above 0 and at most" if above_zero else "from 0 to"
    raise UsageError(
        f"{option} is {value:g}; it must be a number of {unit} {least} {most:.0f}. For as good as "
        f"no limit: {option} {most:.0f}."
    )


def read_key(path: Path) -> str:
    """The API key in a file, without the white space around it.

    Raises:
        OutputError: the file cannot be read.
        UsageError: the key is empty, too short, or not of printable ASCII.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"the API key in {path} must be of printable ASCII.") from error
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}.") from error
    return check_key(text, f"the API key in {path}")


def check_key(text: str, what: str) -> str:
    """The key, once it can be one.

    Raises:
        UsageError: it cannot.
    """
    if len(text) < LEAST_KEY or not (text.isascii() and text.isprintable()) or " " in text:
        raise UsageError(
            f"{what} must have at least {LEAST_KEY} printable ASCII characters without spaces; "
            "make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return text
