"""Measures what a model leaks to those who may query it, encrypted or not.

Algorithms see ``attacks.oracle`` and never how a model is served; ``attacks.oracles`` crosses
over to ``he_infer``, and ``attacks.audit`` and ``attacks.cli`` put both together.
"""
