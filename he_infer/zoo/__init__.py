"""Trained models with polynomial activations, the recipes behind them, and their cards.

    model = zoo.load("mnist-lola")          # weights as trained, evaluation mode
    card = zoo.card("mnist-lola")           # data, recipe, seed, accuracy with its interval
    result = zoo.train("mnist-lola", seed=card.seed, data=zoo.training_set("mnist-lola"))

torch is imported by the functions that need it, not by this package.
"""

from he_infer.zoo.cards import Card, card
from he_infer.zoo.data import inputs, sample, test_set, training_set
from he_infer.zoo.models import load, train, train_relu_twin
from he_infer.zoo.recipes import NAMES, Augmentation, Recipe, recipe

__all__ = [
    "NAMES",
    "Augmentation",
    "Card",
    "Recipe",
    "card",
    "inputs",
    "load",
    "recipe",
    "sample",
    "test_set",
    "train",
    "train_relu_twin",
    "training_set",
]
