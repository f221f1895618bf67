"""No library that we stand on sends messages: from Python, and whatever was imported before."""

from __future__ import annotations

import sys

import pytest

IDENTITY = "home/.cache/Microsoft/DeveloperTools/.onnxruntime/deviceid"
# OpenVINO's converter, as somebody calls it who has OpenVINO beside densepath.
CONVERTS = """
import torch, openvino
openvino.convert_model(torch.nn.ReLU(), example_input=torch.ones(1, 3))
"""


def run(new_user, code: str, **changes: str) -> tuple[str, str]:
    """What the program said on standard output and standard error."""
    ran = new_user.run(sys.executable, "-c", code, **changes)
    return ran.stdout, ran.stderr


def test_the_watch_sees_look_ups_and_calls_and_lets_this_machine_be(new_user):
    code = """
import socket, threading
for host in ("example.org", "localhost", "127.0.0.1"):
    try: print(host, bool(socket.getaddrinfo(host, 80)))
    except socket.gaierror as error: print(host, False)
for address in ("192.0.2.1", "2001:db8::1"):
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as talker:
        try: talker.sendto(b"hello", (address, 53))
        except OSError as error: print(error.strerror)
listening = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listening.getsockname()).close()
try: socket.create_connection(("198.51.100.7", 443), timeout=5)
except OSError as error: print(error.strerror)
"""
    said, _ = run(new_user, code)
    unreachable = "Network is unreachable"
    assert said.splitlines() == [
        "example.org False",
        "localhost True",
        "127.0.0.1 True",
        unreachable,
        unreachable,
        unreachable,
    ]
    assert new_user.calls() == [
        "connect 198.51.100.7 port 443",
        "getaddrinfo example.org",
        "sendto 192.0.2.1 port 53",
        "sendto 2001:db8::1 port 53",
    ]


@pytest.mark.parametrize(
    ("value", "sends"),
    [(None, False), ("", False), (" ", False), ("yes", False), ("0", True), ("False", True)],
)
def test_onnx_runtime_is_silent_unless_its_user_has_asked_for_messages(new_user, value, sends):
    pytest.importorskip("onnxruntime")
    switch = {} if value is None else {"ORT_DISABLE_TELEMETRY": value}
    run(new_user, "import densepath, onnxruntime", **switch)
    assert (IDENTITY in new_user.strays()) is sends
    assert sends or new_user.strays() == []


def test_processes_that_are_spawned_are_silent_too(new_user):
    pytest.importorskip("onnxruntime")
    (new_user.work / "program.py").write_text(
        "import multiprocessing, subprocess, sys\n"
        "import densepath\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    child = context.Process(target=__import__, args=('onnxruntime',))\n"
        "    child.start(); child.join()\n"
        "    subprocess.run([sys.executable, '-c', 'import onnxruntime'], check=True)\n"
    )
    new_user.run(sys.executable, "program.py")
    assert (new_user.strays(), new_user.calls()) == ([], [])


def test_openvino_and_nncf_beside_densepath_call_nobody(new_user):
    pytest.importorskip("nncf")
    run(new_user, f"import densepath\n{CONVERTS}\nimport nncf")
    assert (new_user.strays(), new_user.calls()) == ([], [])


def test_the_hub_is_told_nothing_of_its_user(new_user):
    code = (
        "import densepath, huggingface_hub\n"
        "from huggingface_hub.utils import send_telemetry\n"
        "send_telemetry('densepath')\n"
        "print(huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    said, _ = run(new_user, code)
    assert said == "True\n"
    assert new_user.calls() == []


def test_a_runtime_that_was_imported_first_is_stopped_and_told(new_user):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    code = f"""
import os, time
import onnxruntime, openvino
time.sleep(1)  # OpenVINO has called by now: at its import
os.rename(os.environ["NO_NETWORK_LOG"], "before")
import densepath
{CONVERTS}
"""
    _, told = run(new_user, code)
    assert told.splitlines()[:2] == [
        f"{name} was imported before densepath, too early for its telemetry to be switched off; "
        "it has been told to stop. Import densepath first."
        for name in ("onnxruntime", "openvino")
    ]
    assert [call for call in new_user.calls() if "google" in call] == []
    assert "google" in (new_user.work / "before").read_text()


@pytest.mark.parametrize("value", ["1", "yes", "0"])
def test_who_has_chosen_before_is_told_nothing(new_user, value):
    pytest.importorskip("onnxruntime")
    code = "import onnxruntime, densepath"
    assert run(new_user, code, ORT_DISABLE_TELEMETRY=value) == ("", "")
