"""The same service on PostgreSQL, which is restarted under it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from postgres import Cluster, programs
from working import ended, first_step, until, working

from suffuse.errors import SuffuseError
from suffuse.studio.settings import Settings
from suffuse.studio.views import Refused
from suffuse.systems.request import Request

LITTLE = Request("a dog", steps=1)
pytestmark = pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")


@pytest.fixture(scope="module")
def cluster():
    found = Cluster()
    found.start()
    yield found
    found.remove()


def test_postgresql_is_restarted_and_nothing_is_lost(cluster, tmp_path):
    settings = Settings(data=tmp_path, database=cluster.url, devices=("cpu",))
    with working(settings) as service:
        slow = service.submit(Request("a cat", steps=60), client="me", key="k").id
        alike = [Request(f"{i} 별 ☆", steps=2, seed=i) for i in range(9)]
        asked = [service.submit(request, client="me").id for request in alike]
        first_step(service, slow)
        cluster.stop()
        with pytest.raises(Refused, match="nothing can be kept now") as refused:
            service.submit(LITTLE, client="me")
        assert refused.value.status == 503
        assert "database does not answer" in service.status().trouble
        assert not service.status().ready
        cluster.start()
        jobs = ended(service, slow, *asked)
        assert [job.state for job in jobs] == ["done"] * 10
        assert [(job.attempts, len(job.images)) for job in jobs] == [(0, 1)] * 10
        assert len(service.images()) == 10
        assert [i.prompt for i in service.images(query="☆ 7")] == ["7 별 ☆"]
        with ThreadPoolExecutor(8) as pool:
            keyed = lambda _: service.submit(Request("a cat"), client="me", key="k").id  # noqa: E731
            assert set(pool.map(keyed, range(8))) == {slow}
            keyed = lambda _: service.submit(LITTLE, client="me", key="new").id  # noqa: E731
            assert len(set(pool.map(keyed, range(8)))) == 1
        until(lambda: service.status().ready, "health")
        # While nothing happens, too: every pooled connection is dead then.
        cluster.stop()
        cluster.start()
        assert service.job(slow).state == "done"
        with pytest.raises(SuffuseError, match="NUL"):
            service.submit(Request("a\0b"), client="me")
        assert service.delete_image(jobs[0].images[0].id)


def test_a_database_that_is_not_there_is_said_in_one_line(tmp_path):
    url = f"postgresql+psycopg://suffuse@/postgres?host={tmp_path}"
    with (
        pytest.raises(SuffuseError, match="the database cannot be used"),
        working(Settings(data=tmp_path, database=url)),
    ):
        pass
    with working(Settings(data=tmp_path, devices=("cpu",))):  # the folder is free again
        pass
