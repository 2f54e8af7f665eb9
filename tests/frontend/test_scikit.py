"""scikit-learn's linear models and MLPs compile to their decision values, or are refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, LinearSVC

from he_infer.activations import approx
from he_infer.compiler.pipeline import Approximation
from he_infer.compiler.pipeline import compile as compile_model
from he_infer.errors import CompileError, InputError, UnsupportedLayersError
from he_infer.plan import ir
from he_infer.plan.plan import Plan
from he_infer.runtime.backends.plain import PlainBackend
from he_infer.runtime.executor import run_on

DEGREE_5 = Approximation(method=approx.least_squares, degree=5)

FEATURES = np.random.default_rng(0).normal(size=(120, 5))
CLASSES = (FEATURES @ np.arange(1, 6) > 0).astype(int) + (FEATURES[:, 0] > 1)


def answers(plan: Plan, records: ir.FloatArray) -> ir.FloatArray:
    """One query per record on exact slots."""
    backend, spec = PlainBackend(plan.params, steps=plan.rotation_steps), plan.client_spec
    found = []
    for record in records:
        inputs = [backend.encrypt(s, scale=spec.input_scale) for s in spec.pack(record[None])]
        slots = np.stack([backend.decrypt(c).real for c in run_on(backend, plan, inputs)])
        found.append(spec.unpack(slots, 1)[0])
    return np.array(found)


@pytest.mark.parametrize(
    ("estimator", "labels"),
    [
        (LogisticRegression(), CLASSES),
        (LogisticRegression(), CLASSES > 0),
        (LinearSVC(), CLASSES),
        (SVC(kernel="linear"), CLASSES > 0),
    ],
    ids=["multinomial", "binary", "support vectors", "linear kernel"],
)
def test_linear_classifiers_give_decision_values(
    estimator: LogisticRegression, labels: ir.FloatArray
) -> None:
    estimator.fit(FEATURES, labels)
    plan = compile_model(estimator, FEATURES)
    expected = estimator.decision_function(FEATURES[:5]).reshape(5, -1)
    np.testing.assert_allclose(answers(plan, FEATURES[:5]), expected, atol=1e-9)


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_regression(targets: int, intercept: bool) -> None:
    y = np.random.default_rng(1).normal(size=(120, targets)).squeeze()
    estimator = Ridge(fit_intercept=intercept).fit(FEATURES, y)
    plan = compile_model(estimator, FEATURES)
    expected = estimator.predict(FEATURES[:4]).reshape(4, -1)
    np.testing.assert_allclose(answers(plan, FEATURES[:4]), expected, atol=1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("binary", [True, False])
def test_multilayer_perceptrons(activation: str, binary: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator = MLPClassifier((6, 4), activation=activation, max_iter=60, random_state=0)
        estimator.fit(FEATURES, CLASSES > 0 if binary else CLASSES)
    plan = compile_model(estimator, FEATURES, approximation=DEGREE_5)
    outputs = answers(plan, FEATURES)
    labels = outputs[:, 0] > 0 if binary else outputs.argmax(axis=1)
    assert (labels == estimator.predict(FEATURES)).mean() > 0.9


@pytest.mark.parametrize("estimator", [LogisticRegression(), MLPClassifier(), Ridge()])
def test_estimators_that_are_not_fitted(estimator: Ridge) -> None:
    with pytest.raises(CompileError, match="not fitted"):
        compile_model(estimator, FEATURES)


def test_estimators_that_are_not_supported() -> None:
    with pytest.raises(UnsupportedLayersError, match="SVC"):
        compile_model(SVC(kernel="rbf").fit(FEATURES, CLASSES), FEATURES)


@pytest.mark.parametrize(
    "estimator",
    [PLSRegression(2), PoissonRegressor(), SVC(kernel="linear")],
    ids=["centres", "exponentiates", "votes"],
)
def test_coefficients_that_are_not_the_whole_model(estimator: PoissonRegressor) -> None:
    shifted = FEATURES + 3
    estimator.fit(shifted, CLASSES)
    with pytest.raises(UnsupportedLayersError, match="not its coefficients times the features"):
        compile_model(estimator, shifted)


def test_a_sample_with_another_number_of_features() -> None:
    estimator = Ridge().fit(FEATURES, CLASSES)
    with pytest.raises(InputError, match="takes 5 features"):
        compile_model(estimator, FEATURES[:, :4])
