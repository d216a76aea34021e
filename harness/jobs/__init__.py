"""Jobs: the units of work, each in a process of its own.

A kind of job is a module with a function `run(job: JobContext) -> None`. It reads finished artifacts, makes the outputs of its
specification, and declares each finished with `job.finish`. Nothing is handed from job to job in memory, so any job can run
anywhere, be killed, and be run again.
"""
