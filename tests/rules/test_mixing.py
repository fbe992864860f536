"""Mixing models, and the weight of Zhang et al., at numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from sgdlab.rules import divide_by_staleness, make_receive, mix_models, sgd
from sgdlab.rules.fitting import check_fit


def server(transform, w, w_read, w_new, staleness):
    """The server's next parameters."""
    w, w_read, w_new = (jnp.asarray([x], jnp.float32) for x in (w, w_read, w_new))
    message, _ = transform.update(
        w_read - w_new, transform.init(w), w, staleness=jnp.int32(staleness), stale_params=w_read
    )
    return float((w + sgd(1.0).update(message, sgd(1.0).init(w))[0])[0])


def test_three_quarters_of_the_server_stay():
    # α_τ = ½·(1 + 3)^(−½) = ¼, so ¾·1 + ¼·0.
    assert server(mix_models(0.5, power=0.5), 1.0, 0.2, 0.0, 3) == pytest.approx(0.75, abs=1e-7)


def test_a_fresh_model_has_the_full_share():
    assert server(mix_models(0.5), 1.0, 1.0, 0.0, 0) == pytest.approx(0.5, abs=1e-7)
    assert server(mix_models(1.0), 1.0, 0.2, 0.0, 0) == pytest.approx(0.0, abs=1e-7)


def test_another_weight_goes_behind():
    hinged = make_receive(
        [
            {"name": "mix_models", "alpha": 0.5, "power": 0.0},
            {"name": "hinge_staleness", "a": 1.0, "b": 2.0},
        ]
    )
    # α_τ = ½/(1·(3 − 2) + 1) = ¼ again.
    assert server(hinged, 1.0, 0.2, 0.0, 3) == pytest.approx(0.75, abs=1e-7)


@pytest.mark.parametrize(
    "rule", [{"name": "sgd", "learning_rate": 0.5}, {"name": "adam", "learning_rate": 1.0}]
)
def test_a_rule_that_would_change_the_mixture_is_refused_in_one_line(rule):
    with pytest.raises(ValueError, match=r"mix_models .*allowed: sgd with learning_rate 1.0") as e:
        check_fit("mix_models", rule)
    assert "\n" not in str(e.value)


def test_weights_by_staleness_are_those_of_zhang():
    transform = divide_by_staleness()
    weights = [
        transform.update(jnp.ones(1), transform.init(jnp.ones(1)), None, staleness=jnp.int32(tau))[
            0
        ]
        for tau in range(6)
    ]
    np.testing.assert_allclose(np.ravel(weights), [1, 1, 1 / 2, 1 / 3, 1 / 4, 1 / 5], rtol=2.0**-23)
