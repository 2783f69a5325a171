"""A step where its placement says: here, as a job of a Ray cluster, or as a RayJob. The artifact is the same."""

from __future__ import annotations

from components.artifacts import Artifact
from components.job import Job, JobFailed
from components.placement import Placement
from components.ray_jobs import run_job
from components.rayjob import run_rayjob


def perform(job: Job, place: Placement) -> Artifact:
    """Do the job and return what it made.

    Raises what the step raises; from elsewhere that is JobFailed with the step's message, `user` as the step said.
    """
    if place.mode == "attach":
        return job.perform().artifact
    if place.mode == "jobs":
        resources = {"cpus": place.driver_cpus, "gpus": place.driver_gpus, "poll_s": place.poll_s}
        state = run_job(place.address, job.name, job.entrypoint, env=place.env, before_start=job.hand_over, **resources)
    else:
        state = run_rayjob(job.name, job.entrypoint, job.step, place, before_start=job.hand_over)
    made = job.outcome() if state != "STOPPED" else None
    if made is None:
        raise JobFailed(
            f"job {job.name} of {job.step} ended as {state} without a result: its log above says more; the same "
            "command runs it again"
        )
    job.clear()
    return made
