"""Measures what a model leaks to those who may query it, encrypted or not.

Attack algorithms see ``attacks.core.oracle`` and never how a model is served. Only
``attacks.oracles`` wraps models and services of ``he_infer`` as oracles; ``attacks.audit`` and
``attacks.cli`` run the attacks against them.
"""
