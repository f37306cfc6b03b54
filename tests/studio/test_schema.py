"""Everything that the OpenAPI document promises, asked with whatever schemathesis thinks of."""

import os
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

EXAMPLES = int(os.environ.get("SUFFUSE_EXAMPLES", 4))  # of each kind for each operation
LIMITS = {"steps": 2, "n": 1, "width": 128, "height": 128, "prompt": 40, "pixels": 1 << 16}


@pytest.fixture(scope="module")
def studio(start_studio):
    return start_studio(limits=LIMITS)


def test_no_request_is_a_fault(studio):
    schema = schemathesis.openapi.from_url(f"{studio.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 40
    for operation in operations:
        ask(operation, operation.as_strategy(generation_mode=GenerationMode.POSITIVE), studio)
        if "{" not in operation.path:  # a wrong name takes a second to think of; see test_api
            ask(operation, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), studio)
    assert not [line for line in studio.lines() if line["level"] == "error"]


def ask(operation, cases, studio):
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def asked(case):
        answer = case.call(base_url=studio.url, timeout=120)
        assert answer.status_code < 500, (operation.label, answer.text, case.as_curl_command())
        if answer.status_code >= 400:
            assert "Traceback" not in answer.text and str(studio.data) not in answer.text

    with suppress(Unsatisfiable):  # without parameters, nothing can be wrong with them
        asked()
