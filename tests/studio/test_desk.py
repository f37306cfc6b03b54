"""Which jobs a worker gets."""

from sqlalchemy import update

from suffuse.studio.desk import Desk
from suffuse.studio.disk import Files
from suffuse.studio.events import Hub
from suffuse.studio.service import Service
from suffuse.studio.settings import Settings
from suffuse.studio.store import Store
from suffuse.studio.tables import jobs
from suffuse.systems.request import Request


def test_a_job_cancelled_just_when_its_turn_came_does_not_hold_up_the_next(tmp_path, monkeypatch):
    settings = Settings(data=tmp_path, batch=1)
    waiting, store = Service(settings), Store(settings)  # a service whose workers never start
    store.open()
    gone, stays = (waiting.submit(Request(name), client="me").id for name in ("one", "two"))
    desk = Desk(settings, store, Files(tmp_path), Hub())
    choose = desk._turns.choose

    def too_late(*told):
        chosen = choose(*told)
        ids = [job.id for job in chosen if job.id == gone]
        store.write(
            lambda c: c.execute(update(jobs).where(jobs.c.id.in_(ids)).values(state="cancelled"))
        )
        return chosen

    monkeypatch.setattr(desk._turns, "choose", too_late)
    assert [task.job for task in desk.take()] == [stays]
    assert desk.take() == []
    store.close()
    waiting.stop()
