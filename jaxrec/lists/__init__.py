"""Lists: the jitted function, its scorers, many users at once, and what else a model is asked."""

from jaxrec.lists.recommending import TopK, best_candidates, best_items, recommend, sample_queries

__all__ = ["TopK", "best_candidates", "best_items", "recommend", "sample_queries"]
