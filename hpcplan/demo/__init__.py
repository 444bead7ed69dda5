"""One turn of the whole loop, on a workload, a site and a mock cluster that all ship with hpcplan."""
