"""SGD with delay and momentum on a quadratic: stability, contraction, stationary variance.

On ½λw² with a constant delay τ and the EMA form of momentum, v ← γv + (1−γ)(λwₜ₋τ + ξ) and
w ← w − ηv, only h = ηλ, τ and γ matter. Eliminating v leaves
wₜ₊₁ = (1+γ)wₜ − γwₜ₋₁ − h(1−γ)wₜ₋τ − η(1−γ)ξₜ.
γ = 0 is plain SGD; the heavy ball of rate η is the EMA form of rate η/(1−γ).
"""

import math

import numpy as np


def characteristic_polynomial(step: float, delay: int, decay: float = 0.0) -> np.ndarray:
    """Coefficients, highest power first, of z^τ(z−1)(z−γ) + h(1−γ)z.

    Its roots are the factors by which the iterates shrink or grow, and one root 0.

    Args:
      step: h = ηλ, the learning rate times the curvature.
      delay: τ ≥ 0, in updates.
      decay: γ in [0, 1).

    Returns:
      `[τ + 3]` float64.
    """
    polynomial = np.zeros(delay + 3)
    polynomial[:3] = 1.0, -(1.0 + decay), decay
    polynomial[-2] += step * (1.0 - decay)
    return polynomial


def contraction(step: float, delay: int, decay: float = 0.0) -> float:
    """The factor per update by which the iterates shrink in the end: the largest |root|.

    Args:
      step: h = ηλ.
      delay: τ ≥ 0, in updates.
      decay: γ in [0, 1).

    Returns:
      The spectral radius; the iterates converge where it is below 1.
    """
    return float(np.abs(np.roots(characteristic_polynomial(step, delay, decay))).max())


def stability_limit(delay: int, decay: float = 0.0) -> float:
    """The largest h = ηλ: the iterates converge for 0 < h < 2 sin(π/(2(2τ+1))) where γ = 0.

    With momentum the first roots to leave the unit circle do so at z = e^{iθ} with
    (τ − ½)θ + arg(e^{iθ} − γ) = π/2, whose left side rises with θ, at
    h = |z − 1|·|z − γ|/(1 − γ). For τ = 0 that is 2(1+γ)/(1−γ), for τ = 1 it is 1 for any γ.

    Args:
      delay: τ ≥ 0, in updates.
      decay: γ in [0, 1) of the EMA form; a heavy ball's limit is (1 − γ) times this.

    Returns:
      The limit of h.

    Reference:
      The condition on delay alone: Levin and May, "A note on difference-delay equations", 1976;
      with momentum it is derived here.
    """
    if decay == 0.0:
        return 2.0 * math.sin(math.pi / (2.0 * (2 * delay + 1)))
    low, high = 0.0, math.pi
    for _ in range(100):  # bisection to the last bit
        angle = 0.5 * (low + high)
        phase = (delay - 0.5) * angle + math.atan2(math.sin(angle), math.cos(angle) - decay)
        low, high = (angle, high) if phase < 0.5 * math.pi else (low, angle)
    z = complex(math.cos(low), math.sin(low))
    return abs(z - 1.0) * abs(z - decay) / (1.0 - decay)


def best_delayed_step(delay: int) -> tuple[float, float]:
    """The h = ηλ of fastest convergence without momentum, and its contraction.

    h* = τ^τ/(τ+1)^(τ+1), where two roots meet at τ/(τ+1).

    Args:
      delay: τ ≥ 0, in updates.

    Returns:
      (h*, τ/(τ+1)).

    Reference:
      The double root of z^τ(z−1) + h; for τ = 0 the Newton step h = 1.
    """
    ratio = delay / (delay + 1)
    return ratio**delay / (delay + 1), ratio


def stationary_variance(
    learning_rate: float,
    curvature: float,
    noise_variance: float,
    decay: float = 0.0,
    delay: int = 0,
) -> float:
    """Var(w) in the end, when every gradient has independent noise of variance σ².

    - τ = 0: ησ²/(λ(2 − h(1−γ)/(1+γ))), that is ησ²/(λ(2−h)) for plain SGD;
    - τ = 1, γ = 0: η²σ²(1+h)/((1−h)h(2+h));
    - otherwise the solution of P = APAᵀ + Q, with A the companion matrix of the recursion.

    Args:
      learning_rate: η of the EMA form.
      curvature: λ > 0.
      noise_variance: σ² of one message's noise (a batch's: divide by its size).
      decay: γ in [0, 1).
      delay: τ ≥ 0, in updates.

    Returns:
      The variance; infinite at and beyond the stability limit.

    Reference:
      Mandt, Hoffman and Blei, "Stochastic gradient descent as approximate Bayesian inference",
      2017, for small h without delay, of which the abstract was read; all three are derived here.
    """
    step = learning_rate * curvature
    if step >= stability_limit(delay, decay):
        return math.inf
    if delay == 0:
        shrunk = step * (1.0 - decay) / (1.0 + decay)
        return learning_rate * noise_variance / (curvature * (2.0 - shrunk))
    push = learning_rate**2 * noise_variance
    if delay == 1 and decay == 0.0:
        return push * (1.0 + step) / ((1.0 - step) * step * (2.0 + step))
    # One power of z belongs to the root 0 and says nothing.
    return (
        push
        * (1.0 - decay) ** 2
        * _sum_of_squares(characteristic_polynomial(step, delay, decay)[:-1])
    )


def _sum_of_squares(polynomial: np.ndarray) -> float:
    """Σ of the squared impulse response of the recursion with these coefficients.

    With A its companion matrix and Q a one in the corner, Σ AᵏQ(Aᵀ)ᵏ is summed by doubling:
    P ← P + APAᵀ, A ← A².
    """
    size = len(polynomial) - 1
    matrix = np.eye(size, k=-1)
    matrix[0] = -polynomial[1:]
    total = np.zeros((size, size))
    total[0, 0] = 1.0
    while np.abs(matrix).max() > 1e-30:
        total = total + matrix @ total @ matrix.T
        matrix = matrix @ matrix
    return float(total[0, 0])
