"""rq doing real work: two worker processes, a scheduler, retries, dependencies, remote commands.

usage: rq_jobs.py HOST PORT PREFIX
"""

import os
import subprocess
import sys
from datetime import timedelta

import rq_tasks
from redis import Redis
from report import step, wait_until
from rq import Queue, Retry, Worker
from rq.command import send_shutdown_command, send_stop_job_command
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry

JOBS = 30
WORKERS = 2

host, port, prefix = sys.argv[1:]
connection = Redis(host=host, port=int(port))
queue = Queue(prefix, connection=connection)


def wait_for(job: Job, *states: JobStatus) -> str:
    wait_until(lambda: job.get_status(refresh=True) in states, f"{job.id} is {states}", 40)
    return job.get_status().value


def finish(job: Job) -> object:
    wait_for(job, JobStatus.FINISHED, JobStatus.FAILED)
    result = job.latest_result()
    return result.return_value if job.is_finished else (result.exc_string or "").splitlines()[-1:]


jobs = [queue.enqueue(rq_tasks.square, n, job_id=f"{prefix}-{n}") for n in range(JOBS)]
step("enqueue", len(queue), queue.job_ids == [job.id for job in jobs])
step("fetch", Job.fetch(jobs[3].id, connection).args, Job.exists("missing", connection))
step("fetch many", [job.args for job in Job.fetch_many([jobs[1].id, jobs[2].id], connection)])
step("position", jobs[5].get_position(), queue.get_job_position(jobs[6].id))
step("queues", [each.name for each in Queue.all(connection) if each.name == prefix])

jobs[0].meta["note"] = "line\r\nfeed"
jobs[0].save_meta()
step("meta", Job.fetch(jobs[0].id, connection).get_meta())
extra = queue.enqueue(rq_tasks.square, 1, job_id=f"{prefix}-extra", description="an extra one")
step("description", Job.fetch(extra.id, connection).description)
extra.cancel()
step("cancel", extra.get_status().value, extra.id in CanceledJobRegistry(queue=queue), len(queue))
extra.delete()
step("delete", Job.exists(extra.id, connection), extra.id in CanceledJobRegistry(queue=queue))
urgent = queue.enqueue(rq_tasks.square, 100, at_front=True)
step("at front", queue.job_ids[0] == urgent.id, urgent.get_position())

workers = [
    subprocess.Popen(
        [sys.executable, "-m", "rq.cli", "worker", "--quiet", "--with-scheduler",
         "--url", f"redis://{host}:{port}", "--name", f"{prefix}-worker-{number}", prefix],
        env=os.environ | {"QUEUE_HOST": host, "QUEUE_PORT": port},
        # rq reports the failures that are made on purpose there.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for number in range(WORKERS)
]  # fmt: skip
try:
    step("work", [finish(job) for job in jobs], len(queue))
    finished = FinishedJobRegistry(queue=queue).get_job_ids()
    step("work", sorted(finished) == sorted(job.id for job in jobs))

    failed = queue.enqueue(rq_tasks.fail, "on purpose")
    step("failure", finish(failed), failed.id in FailedJobRegistry(queue=queue))
    failed.requeue()
    wait_until(lambda: len(failed.results()) == 2, "it has failed again")
    step("requeue", [result.type.name for result in failed.results()])
    step("urgent", finish(urgent))
    step("retry", finish(queue.enqueue(
        rq_tasks.succeed_at, 3, f"{prefix}:attempts", retry=Retry(max=5),
    )))  # fmt: skip
    step("retry later", finish(queue.enqueue(
        rq_tasks.succeed_at, 2, f"{prefix}:later", retry=Retry(max=5, interval=1),
    )))  # fmt: skip
    step("schedule", finish(queue.enqueue_in(timedelta(seconds=1), rq_tasks.square, 12)))

    first = queue.enqueue(rq_tasks.square, 3)
    second = queue.enqueue(rq_tasks.square, 4, depends_on=first)
    last = queue.enqueue(rq_tasks.total, 9, 16, depends_on=[first, second])
    step("dependency", finish(last), finish(second))

    many = queue.enqueue_many([Queue.prepare_data(rq_tasks.square, (n,)) for n in range(5)])
    step("many", [finish(job) for job in many])

    long = queue.enqueue(rq_tasks.sleep, 60)
    wait_for(long, JobStatus.STARTED)
    wait_until(
        lambda: any(w.get_current_job_id() == long.id for w in Worker.all(connection)), "it runs"
    )
    send_stop_job_command(connection, long.id)
    step("stop", wait_for(long, JobStatus.STOPPED, JobStatus.FAILED))

    step("workers", sorted(worker.name for worker in Worker.all(queue=queue)))
    for worker in Worker.all(queue=queue):
        send_shutdown_command(connection, worker.name)
    step("shutdown", [worker.wait(20) for worker in workers], Worker.all(queue=queue))

    left = [queue.enqueue(rq_tasks.square, n) for n in range(3)]
    step("empty", queue.empty(), len(queue), Job.exists(left[0].id, connection))
    queue.delete(delete_jobs=True)
    step("delete queue", prefix in [each.name for each in Queue.all(connection)])
finally:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
            worker.wait()
