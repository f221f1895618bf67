"""`densepath serve`: bundles behind REST and gRPC."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from densepath.choices import LogFormat, LogLevel
from densepath.cli.console import note
from densepath.cli.options import EngineName, Precision
from densepath.serving.core.settings import MEGABYTE, Settings

KEY_VARIABLE = "DENSEPATH_API_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
DEFAULTS = Settings()


def serve(
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE...",
            help="Bundles, as PATH, NAME=PATH or NAME@VERSION=PATH; a name is the folder's by "
            "default, a version 1.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 is all of this machine's.")
    ] = DEFAULTS.host,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of REST; 0 is any free one.")
    ] = DEFAULTS.port,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of gRPC; 0 is any free one.")
    ] = DEFAULTS.grpc_port,
    no_grpc: Annotated[bool, typer.Option("--no-grpc", help="REST alone.")] = False,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes behind the same ports, each with its network.")
    ] = DEFAULTS.workers,
    engine: Annotated[EngineName, typer.Option(help="What runs the networks.")] = DEFAULTS.engine,
    precision: Precision = DEFAULTS.precision,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Of a network in a worker; the cores by the workers by default."),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images of one run; what the engine prefers by default."),
    ] = None,
    max_delay_ms: Annotated[
        float,
        typer.Option(min=0, help="How long a batch waits for images that are being read."),
    ] = DEFAULTS.max_delay_s * 1000,
    max_queue: Annotated[
        int,
        typer.Option(min=1, help="Images of a model and worker at once; more are refused (429)."),
    ] = DEFAULTS.max_queue,
    max_images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Of one request; {DEFAULTS.max_images} by default, or what the queue holds.",
        ),
    ] = None,
    max_body_mb: Annotated[
        float, typer.Option(min=0.001, help="Of one request.")
    ] = DEFAULTS.max_body_bytes / MEGABYTE,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Height × width of an image, by its header.")
    ] = DEFAULTS.max_pixels,
    max_connections: Annotated[
        int, typer.Option(min=1, help="At once, of a worker.")
    ] = DEFAULTS.max_connections,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds from a request's arrival to its answer.")
    ] = DEFAULTS.timeout_s,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds for what runs when the server is told to end.")
    ] = DEFAULTS.grace_s,
    linger: Annotated[
        float,
        typer.Option(min=0, help="Seconds in which it is not ready, but takes requests still."),
    ] = DEFAULTS.linger_s,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with the key that clients must send; or set {KEY_VARIABLE}."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let pages of this origin use it, as https://photos.example.org; again for more, "
            "'*' for all.",
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file of the chain.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file of its key.")
    ] = None,
    no_page: Annotated[
        bool, typer.Option("--no-page", help="Without the pages at / and /docs.")
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of the lines on standard error.")
    ] = DEFAULTS.log_format,
    log_level: Annotated[
        LogLevel,
        typer.Option(help="The least that is logged; debug has health checks and /metrics, too."),
    ] = DEFAULTS.log_level,
) -> None:
    """Answer images over REST and gRPC, with a page at / and metrics at /metrics.

    SIGTERM and Ctrl-C end it once all that it took is answered; SIGHUP opens the bundles anew.

    Example: densepath serve bundles/pets --port 8080
    """
    from densepath.engines.cores import usable_cores
    from densepath.serving.core.settings import (
        MOST_BODY_MB,
        check_key,
        check_number,
        parse_sources,
        read_key,
    )
    from densepath.serving.process.run import run
    from densepath.serving.rest.origins import parse_origins

    key = os.environ.get(KEY_VARIABLE)
    if api_key_file is not None:
        key = read_key(api_key_file)
    elif key is not None:
        key = check_key(key, KEY_VARIABLE)
    check_number("--max-body-mb", max_body_mb, "megabytes", MOST_BODY_MB, above_zero=True)
    settings = Settings(
        host=host,
        port=port,
        grpc_port=None if no_grpc else grpc_port,
        workers=workers,
        engine=engine,
        precision=precision,
        threads=threads or max(1, usable_cores() // workers),
        max_batch=max_batch,
        max_delay_s=max_delay_ms / 1000,
        max_queue=max_queue,
        max_images=max_images or min(DEFAULTS.max_images, max_queue),
        max_body_bytes=round(max_body_mb * MEGABYTE),
        max_pixels=max_pixels,
        max_connections=max_connections,
        timeout_s=timeout,
        grace_s=grace,
        linger_s=linger,
        api_key=key,
        allowed_origins=parse_origins(allow_origin or ()),
        certificate=tls_certificate,
        key=tls_key,
        pages=not no_page,
        log_format=log_format,
        log_level=log_level,
    )
    if host not in LOOPBACK and key is None:
        note(f"warning: anybody who reaches {host} may use this server; --api-key-file asks a key.")
    run(settings, parse_sources(bundles), note)
