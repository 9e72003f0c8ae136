"""What runs in the watched process besides the sampler: settings, endpoint, push, middleware."""
