"""What the demo needs of the machine: memory limits, processes that restart, compilers, ports."""
