"""What runs a workload for real, in the Python that has torch.

``launch.run`` starts ``python -m memplan.evidence.runner JOB.json`` in a process of its own: peaks
of a second run in one process would stand on the leavings of the first. memplan itself stays in
the Python that has no torch; the two exchange plain JSON. Running in the caller's process was the
other way: it needs torch there, and the virtual GPU must be chosen before torch is loaded.
"""
