"""Nothing that densepath stands on sends messages of its own accord, or keeps files for it.

`import densepath` switches it off before anything is imported that would read the switches;
processes that are started from there inherit them. Who would send what, and what shows that it is
silent: docs/dependencies.md, "Telemetry". deploy/cpp does the same for the C++ program.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

ONNX_RUNTIME = "ORT_DISABLE_TELEMETRY"
# Read at their import by ONNX Runtime, by huggingface_hub, hf_xet and transformers, and by NNCF.
SWITCHES = (ONNX_RUNTIME, "HF_HUB_DISABLE_TELEMETRY", "NNCF_CI")
# Who has set a switch to one of these has chosen to send; empty, it has not been chosen.
REFUSALS = ("0", "false", "no", "off")
# OpenVINO and NNCF send by it as soon as they are imported, and write into `~/intel`. Nothing but
# a continuous integration's variables switches it off; where it is not found they do without.
OPENVINO_TELEMETRY = "openvino_telemetry"


def switch_off_telemetry() -> None:
    """Let no package send messages from this process, or from those that it starts.

    A package that was imported before has begun by now: it is told to stop, and a note says so.
    """
    chosen = os.environ.get(ONNX_RUNTIME, "").strip()
    for name in SWITCHES:
        if os.environ.get(name, "").lower() not in REFUSALS:
            os.environ[name] = "1"
    runtime: Any = sys.modules.get("onnxruntime")
    if runtime is not None and not chosen:
        # Of what it does once a model is loaded; that it was started, it goes on to send.
        with suppress(AttributeError):
            runtime.disable_telemetry_events()
        _say_early("onnxruntime")
    telemetry: Any = sys.modules.get(OPENVINO_TELEMETRY)
    if telemetry is not None:
        with suppress(AttributeError):
            telemetry.main.TelemetrySender.send = lambda *_: None  # whoever holds a part of it
        _say_early("openvino")
    else:
        sys.modules[OPENVINO_TELEMETRY] = None  # type: ignore[assignment]


def _say_early(name: str) -> None:
    """Note that the package could send a message before it was stopped."""
    import logging

    logging.getLogger("densepath").warning(
        "%s was imported before densepath, too early for its telemetry to be switched off; it "
        "has been told to stop. Import densepath first.",
        name,
    )
