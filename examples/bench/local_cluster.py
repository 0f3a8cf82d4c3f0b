"""Runs so many tasks with so many cores on a local HyperQueue; prints the seconds it took."""

import os
import sys
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

count, cores = int(sys.argv[1]), int(sys.argv[2])
with LocalCluster(os.path.abspath("server")) as cluster:
    client = cluster.client()
    job = Job(max_fails=0)
    for _ in range(count):
        job.program(["/bin/true"], stdout=None, stderr=None)
    submitted = client.submit(job)
    begun = time.monotonic()
    cluster.start_worker(WorkerConfig(cores=cores))
    client.wait_for_jobs([submitted])
    print(time.monotonic() - begun, flush=True)
