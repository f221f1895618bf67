"""`densepath serve` as a user mistypes it: a line that says what is right, and exit code 1 or 2."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from densepath.extras import packages_of
from fixtures.networks import SHIPPED

pytest.importorskip("fastapi")
PROGRAM = Path(sys.executable).with_name("densepath")
FREE = ("--port", "0", "--grpc-port", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a bundle, `small`, and a file, `page`."""
    from densepath.exporting.export import export

    made = tmp_path_factory.mktemp("serve")
    export(SHIPPED, made / "small", to=["torch"], num_images=1, batch_sizes=[1])
    (made / "page").write_text("no key")
    return made


def run(folder: Path, *words: object, environment: dict[str, str] | None = None):
    import os

    done = subprocess.run(
        [PROGRAM, "serve", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(environment or {})},
    )
    return done.returncode, done.stderr


WRONG = [
    (("nothing",), 1, "nothing is not a bundle: it is not a folder"),
    (("small", "small"), 2, "name one of them otherwise, as small@2="),
    (("a@0=small",), 2, "the version '0' in 'a@0=small' must be a number from 1 on"),
    (("a@=small",), 2, "the version ''"),
    (("a/b=small",), 2, "the name 'a/b' in 'a/b=small' may have letters"),
    (("small=",), 2, "names no bundle"),
    (("small", "--host", "nowhere.invalid"), 2, "is no address of this machine; use 127.0.0.1"),
    (("small", "--host", "192.0.2.7"), 1, "192.0.2.7 is no address of this machine"),
    (("small", "--api-key-file", "nokey"), 1, "nokey cannot be read: No such file"),
    (("small", "--api-key-file", "page"), 2, "at least 16 printable ASCII characters"),
    (("small", "--tls-key", "page"), 2, "TLS takes both"),
    (("small", "--tls-key", "page", "--tls-certificate", "page"), 2, "are not a certificate"),
    (("small", "--max-images", "65"), 2, "more than the --max-queue of 64"),
    (("small", "--engine", "openvino"), 1, "has no openvino format; it has torch"),
    (("small", "--engine", "openvino", "--workers", "2"), 1, "has no openvino format"),
]


@pytest.mark.parametrize(("words", "code", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_argument_is_told_with_what_is_right(folder, words, code, said):
    found, err = run(folder, *words, *FREE)
    assert (found, said in err) == (code, True), err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: ")


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option in ("--port", "--grpc-port"):
            code, err = run(folder, "small", *FREE, option, port)
            assert code == 1
            assert err.splitlines() == [
                f"error: port {port} on 127.0.0.1 is taken by another program; name another one, "
                "or 0."
            ]


def test_a_changed_bundle_is_not_served(folder, tmp_path):
    shutil.copytree(folder / "small", tmp_path / "small")
    weights = tmp_path / "small" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, err = run(tmp_path, "small", *FREE)
    assert code == 1
    assert "model.safetensors has" in err


def test_a_key_in_the_environment_must_be_one_too(folder):
    code, err = run(folder, "small", *FREE, environment={"DENSEPATH_API_KEY": "secret"})
    assert code == 2
    assert "DENSEPATH_API_KEY must have at least 16" in err
    assert "secret" not in err.replace("secrets.token_urlsafe", "").replace("import secrets", "")


def test_a_missing_package_is_named_with_all_that_a_server_needs(folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'grpc' else real(name, *more)\n"
    )
    code, err = run(folder, "small", *FREE, environment={"PYTHONPATH": str(tmp_path)})
    assert code == 1
    assert f"pip install {' '.join(packages_of('serve'))}" in err


def test_of_two_programs_that_bound_a_free_port_the_second_to_listen_says_that_it_is_taken():
    from densepath.serving.process.sockets import PortError, find_port, open_socket, start_listening

    port = find_port("127.0.0.1", 0)
    with open_socket("127.0.0.1", port) as first, open_socket("127.0.0.1", port) as second:
        start_listening(first)
        with pytest.raises(PortError, match=f"port {port} on 127.0.0.1 is taken by another"):
            start_listening(second)
        start_listening(first)  # as uvicorn does once more
