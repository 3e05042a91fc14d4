"""The fault server, which the tests of requests share."""

from tests.llm.conftest import server as server
