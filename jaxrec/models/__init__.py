"""Recommenders, one file each, and what they are set up with."""

from jaxrec.models.denoising import Objective
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.diffurecsys import DiffuRecSysRecommender
from jaxrec.models.encoder import EncoderRecommender, Penalty
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.models.stosa import StosaRecommender

__all__ = [
    "DiffuRecRecommender",
    "DiffuRecSysRecommender",
    "EncoderRecommender",
    "Objective",
    "Penalty",
    "PopularityRecommender",
    "StosaRecommender",
]
