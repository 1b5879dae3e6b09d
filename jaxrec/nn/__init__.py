"""Linen modules; here the providers of attention, which take each other's place."""

from jaxrec.nn.attention import AttentionOutput, DotProduct
from jaxrec.nn.diffusion_attention import DiffusionAttention
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import WassersteinScores
from jaxrec.nn.vae_attention import VaeAttention

__all__ = [
    "AttentionOutput",
    "DiffusionAttention",
    "DotProduct",
    "Refined",
    "VaeAttention",
    "WassersteinScores",
]
