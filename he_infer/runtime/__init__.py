"""A plan computes: kernels, backends, replies and their costs."""
