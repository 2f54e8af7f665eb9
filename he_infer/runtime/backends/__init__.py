"""Interpreters of the kernels: plain · simulated · cost · seal, all over one protocol."""
