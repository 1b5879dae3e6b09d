"""The approximators and the reverse process in slow, plain float64 numpy, row by row, from methods.md.

Nothing here calls jaxrec; parameters are the recommender's, by name. Dropout is off throughout.
"""

import math

import numpy as np


def as_numpy(params):
    """The parameter tree with float64 leaves."""
    if isinstance(params, dict):
        return {name: as_numpy(child) for name, child in params.items()}
    return np.asarray(params, np.float64)


def norm(p, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def feed_forward(p, x):
    return dense(p["contract"], gelu(dense(p["expand"], x)))


def step_embedding(p, t, num_steps, width):
    half = width // 2
    angles = [t * 1000 / num_steps * math.exp(-math.log(10000) * i / half) for i in range(half)]
    sinusoid = np.array([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    hidden = dense(p["expand"], sinusoid)
    return dense(p["contract"], hidden / (1 + np.exp(-hidden)))


def self_attention(p, x, heads):
    """Of real items only: ``x`` ``[n, D]``."""
    width = x.shape[-1]
    projected = x @ p["kernel"] + p["bias"]
    query, key, value = projected[:, :width], projected[:, width : 2 * width], projected[:, 2 * width :]
    return dense(p["output"], attend(query, key, value, heads))


def attend(query, key, value, heads):
    channels = query.shape[-1] // heads
    mixed = np.zeros_like(query)
    for h in range(heads):
        part = slice(h * channels, (h + 1) * channels)
        weights = softmax(query[:, part] @ key[:, part].T / math.sqrt(channels))
        mixed[:, part] = weights @ value[:, part]
    return mixed


def cross_attention(p, x, history, heads, form):
    """``x`` ``[n, D]`` reads ``history`` ``[m, D]`` (Shen et al. 2021 for the linear form)."""
    query = dense(p["query"], x)
    key, value = np.split(dense(p["key_value"], history), 2, axis=-1)
    if form == "softmax":
        return dense(p["output"], attend(query, key, value, heads))
    channels = query.shape[-1] // heads
    mixed = np.zeros_like(query)
    for h in range(heads):
        part = slice(h * channels, (h + 1) * channels)
        context = softmax(key[:, part], axis=0).T @ value[:, part]
        mixed[:, part] = softmax(query[:, part]) @ context
    return dense(p["output"], mixed)


def prefix_approximator(
    p, history, x_t, t, normal, *, num_steps, heads, scale, cross="none", token_queries=False
):
    """x̂_0 ``[D]`` from one row: e ``[n, D]`` without padding, x_t ``[D]``, normal ``[n, D]``."""
    width = history.shape[-1]
    uncertainty = scale + scale * normal
    seen = uncertainty * (x_t + step_embedding(p["signal"]["step_embedding"], t, num_steps, width))
    z = history + seen
    for index in range(sum(name.startswith("block_") for name in p)):
        b = p[f"block_{index}"]
        if cross != "none":
            queries = norm(b["norm_cross"], z) if token_queries else seen
            z = z + cross_attention(b["cross"], queries, history, heads, cross)
        z = z + self_attention(b["attention"], norm(b["norm_attention"], z), heads)
        z = z + feed_forward(b["feed_forward"], norm(b["norm_feed_forward"], z))
    return norm(p["norm"], z)[-1]


def target_approximator(p, history, x_t, t, normal, *, num_steps, heads, scale, cross="softmax"):
    """x̂_0 ``[D]`` of the target after the last of ``history`` ``[n, D]``; x_t and normal are ``[D]``."""
    signal = x_t + step_embedding(p["signal"]["step_embedding"], t, num_steps, len(x_t))
    z = (history[-1] + (scale + scale * normal) * signal)[None]
    for index in range(sum(name.startswith("block_") for name in p)):
        b = p[f"block_{index}"]
        if cross != "none":
            z = z + cross_attention(b["cross"], norm(b["norm_cross"], z), history, heads, cross)
        z = z + feed_forward(b["feed_forward"], norm(b["norm_feed_forward"], z))
    return norm(p["norm"], z)[0]


def truncated_linear(num_steps):
    """β and ᾱ of all steps."""
    stretch = 1000 / num_steps
    end = 0.02 * stretch + 0.01
    betas = np.linspace(1e-4 * stretch + 0.01, end if end <= 1 else 0.001 * stretch + 0.01, num_steps)
    return betas, np.cumprod(1 - betas)


def corrupt(x0, t, noise, num_steps):
    """x_t of one target, ``[D]``."""
    alpha_bar = truncated_linear(num_steps)[1][t]
    return math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * noise


def unit(x):
    """``x`` ``[D]`` divided by the root mean square of its channels."""
    return x / math.sqrt((x**2).mean())


def reverse(denoise, start, step_noise, num_steps, *, unit_scale=False):
    """DDPM on the truncated linear schedule: ``denoise(x, t)``, ``step_noise(t)``; the last x̂_0."""
    betas, alpha_bars = truncated_linear(num_steps)
    x = np.asarray(start, np.float64)
    for t in range(num_steps - 1, -1, -1):
        x0_hat = unit(denoise(x, t)) if unit_scale else denoise(x, t)
        before = alpha_bars[t - 1] if t > 0 else 1.0
        c1 = betas[t] * math.sqrt(before) / (1 - alpha_bars[t])
        c2 = (1 - before) * math.sqrt(1 - betas[t]) / (1 - alpha_bars[t])
        x = c1 * x0_hat + c2 * x
        if t > 0:
            x = x + math.sqrt(betas[t]) * step_noise(t)
    return x0_hat
