"""Trained models with polynomial activations, the recipes behind them, and their cards.

    model = zoo.load("mnist-lola")          # weights as trained, evaluation mode
    card = zoo.card("mnist-lola")           # data, recipe, seed, accuracy with its interval
    result = zoo.train("mnist-lola", seed=card.seed, data=zoo.training_set("mnist-lola"))

torch is imported by the functions that need it, not by this package.
"""

from he_infer.zoo.cards import Card as Card, card as card
from he_infer.zoo.data import (
    inputs as inputs,
    sample as sample,
    test_set as test_set,
    training_set as training_set,
)
from he_infer.zoo.models import load as load, train as train, train_relu_twin as train_relu_twin
from he_infer.zoo.recipes import (
    NAMES as NAMES,
    Augmentation as Augmentation,
    Recipe as Recipe,
    recipe as recipe,
)
