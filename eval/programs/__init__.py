"""Real programs under the real agent: leaks, each with its repaired twin, and look-alikes."""
