"""Protocol cards: what chose the checkpoint, and which figures may stand together."""

import pytest

from jaxrec.protocol import chosen_by, comparable


@pytest.mark.parametrize(
    ("trained", "validated", "exclude_seen", "words"),
    [
        (True, True, True, "validation ndcg@10, seen excluded"),
        (True, True, False, "validation ndcg@10, seen included"),
        (True, False, True, "nothing: there are no validation targets, and the last checkpoint is taken"),
        (False, True, True, "nothing: it is not trained"),
    ],
)
def test_a_card_says_what_chose_the_checkpoint(trained, validated, exclude_seen, words):
    assert chosen_by(trained=trained, validated=validated, exclude_seen=exclude_seen) == words


def test_another_metric_chose_another_checkpoint():
    choice = chosen_by(trained=True, validated=True, exclude_seen=True, select_by="hr@5")
    assert choice == "validation hr@5, seen excluded"
    assert comparable({"chosen_by": choice}) != comparable({"chosen_by": "validation ndcg@10"})


def test_a_choice_counts_where_there_was_one():
    card = {"data": "toys", "seed": 3, "chosen_by": "validation ndcg@10, seen included"}
    assert comparable(card) == {"data": "toys", "chosen_by": "validation ndcg@10, seen included"}
    assert comparable({"data": "toys", "chosen_by": "nothing: it is not trained"}) == {"data": "toys"}


def test_older_cards_were_of_seen_items_excluded():
    older = comparable({"chosen_by": "validation ndcg@10"})
    assert older == comparable({"chosen_by": "validation ndcg@10, seen excluded"})
