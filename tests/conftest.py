from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is slow, and no test is of its speed. A commit passes or fails each time
# alike; `--hypothesis-profile=explore` looks for examples that were not tried yet.
_PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("explore", **_PATIENT)
settings.register_profile("fixed", derandomize=True, **_PATIENT)
settings.load_profile("fixed")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Every worker has a core to itself: threads of several would only wait for each other. It is
    # set before torch is loaded, and what tests start inherits it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """A bucket on an S3 server of this machine, which the environment leads to."""
    pytest.importorskip("obstore", reason="pip install 'wsiseg[cloud]'")
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        urllib.request.urlopen(urllib.request.Request(f"{address}/slides", method="PUT")).close()
        yield "s3://slides"
    running.stop()
