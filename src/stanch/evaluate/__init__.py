"""The benchmark of detectors: simulated services of known truth, any detector, the same metrics."""
