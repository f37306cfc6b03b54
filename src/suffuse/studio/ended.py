"""How a job ended, for clients that ask and wait in one request."""

from __future__ import annotations

from suffuse.studio.problems import Problem
from suffuse.studio.views import JobView

# What `JobView.error` begins with where the fault is not the request's.
_OURS = ("internal error", "the worker died")


def made(job: JobView) -> JobView:
    """The job, if it is done. Raises Problem."""
    if job.state == "done":
        return job
    raise failure(job)


def failure(job: JobView) -> Problem:
    """Why an ended job has no pictures, or not all."""
    if job.state == "cancelled":
        return Problem("the job was cancelled", status=409)
    error = job.error or "the job failed"
    # OpenAI's client would send what failed again, twice.
    once = {"x-should-retry": "false"}
    return Problem(error, status=500 if error.startswith(_OURS) else 400, headers=once)
