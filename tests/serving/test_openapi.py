"""What the OpenAPI document promises holds for requests that it allows, and that it does not."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

PATHS = [
    ("GET", "/models"),
    ("POST", "/classify"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("POST", "/v1/models/{name}:predict"),
    ("POST", "/v1/models/{name}:explain"),
    ("GET", "/v2"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/models"),
    ("GET", "/v2/models/{name}"),
    ("GET", "/v2/models/{name}/versions/{version}"),
    ("GET", "/v2/models/{name}/ready"),
    ("GET", "/v2/models/{name}/versions/{version}/ready"),
    ("POST", "/v2/models/{name}/infer"),
    ("POST", "/v2/models/{name}/versions/{version}/infer"),
    ("GET", "/v2/models/stats"),
    ("GET", "/v2/models/{name}/stats"),
    ("GET", "/v2/models/{name}/versions/{version}/stats"),
    ("GET", "/v2/models/{name}/config"),
    ("GET", "/v2/models/{name}/versions/{version}/config"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/{name}/load"),
    ("POST", "/v2/repository/models/{name}/unload"),
    ("GET", "/"),
    ("GET", "/page/style.css"),
    ("GET", "/page/page.css"),
    ("GET", "/page/page.js"),
    ("GET", "/page/cards.js"),
    ("GET", "/page/elements.js"),
    ("GET", "/page/server.js"),
    ("GET", "/page/speed.js"),
    ("GET", "/docs"),
    ("GET", "/metrics"),
]
# Those with a body, which can be wrong.
WITH_BODY = [
    (method, path) for method, path in PATHS if method == "POST" and "repository" not in path
]
MODES = [(*each, "positive") for each in PATHS] + [(*each, "negative") for each in WITH_BODY]
EXAMPLES = 40


@pytest.fixture(scope="module")
def document(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_route_is_described(document):
    described = {
        (method.upper(), path)
        for path, item in document.raw_schema["paths"].items()
        for method in item
    }
    assert described == set(PATHS)


@pytest.mark.parametrize(("method", "path", "mode"), MODES)
def test_no_request_brings_a_5xx_or_an_answer_that_is_not_described(
    document, server, method, path, mode
):
    """Names of models that there are, too: a random one never gets far."""
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi import checks as openapi

    checks = [
        schemathesis.checks.not_a_server_error,
        openapi.status_code_conformance,
        openapi.content_type_conformance,
        openapi.response_schema_conformance,
        openapi.response_headers_conformance,
    ]
    operation = document[path][method]
    wanted = GenerationMode.POSITIVE if mode == "positive" else GenerationMode.NEGATIVE
    strategy = operation.as_strategy(generation_mode=wanted)
    names = st.sampled_from(["colour", "gray", None])

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy, name=names, version=st.sampled_from(["1", "2", None]))
    def ask(case, name, version):
        if name and path.startswith(("/v1", "/v2/models")) and "name" in case.path_parameters:
            case.path_parameters["name"] = name
        if version and "version" in case.path_parameters:
            case.path_parameters["version"] = version
        if name and path == "/classify" and isinstance(case.query, dict):
            case.query["model"] = name
        response = case.call(base_url=server.url, timeout=60)
        case.validate_response(response, checks=checks)

    ask()
