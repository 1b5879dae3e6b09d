"""``prepare.py``: files of any kind to a folder that opens at once."""

import pytest
from command_line import assert_one_sentence, run_here

from jaxrec.data.interactions import Interactions

LINES = [f"{user},{item},{user + item}" for user in range(8) for item in range(user + 1)]


@pytest.fixture
def prepare(tmp_path, capsys):
    """``prepare(files, ...)``: the log that was saved, and what was shown."""

    def run(*arguments):
        outcome = run_here("prepare.py", "--out", tmp_path / "log", "--data", *arguments, capsys=capsys)
        assert outcome.code == 0, outcome.err
        return Interactions.open(tmp_path / "log"), outcome.out + outcome.err

    return run


def test_events_in_several_files_are_one_log(prepare, tmp_path):
    for name, lines in (("a.csv", LINES[:20]), ("b.csv", LINES[20:])):
        (tmp_path / name).write_text("\n".join(["user,item,time", *lines]) + "\n")
    log, shown = prepare(tmp_path / "a.csv", tmp_path / "b.csv", "--name", "both")
    assert (log.num_users, log.num_items, log.num_interactions) == (8, 8, 36)
    assert log.name == "both"
    assert log.fingerprint() in shown
    assert "train.py --data" in shown


def test_the_core_is_taken_on_demand(prepare, tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["user,item,time", *LINES]) + "\n")
    log, _ = prepare(tmp_path / "a.csv", "--min-user", 5, "--min-item", 4)
    assert log.num_users == 4
    assert log.num_items == 5
    assert log.lengths.min() >= 5


def test_sequences_with_titles(prepare, tmp_path):
    (tmp_path / "a.seq.txt").write_text("ann\tx y z\nbob\ty z\n")
    (tmp_path / "titles.tsv").write_text("item\ttitle\tcategories\tasin\nx\tThe X\tone|two\tB1\n")
    log, _ = prepare(tmp_path / "a.seq.txt", "--items", tmp_path / "titles.tsv", "--items-id", "item")
    assert log.items.tolist() == [1, 2, 3, 2, 3]
    assert log.metadata.titles.to_list() == ["The X", None, None]


def test_the_publishers_format(prepare, tmp_path):
    (tmp_path / "ratings.dat").write_text("1::10::5::978300760\n1::20::3::978300761\n2::10::4::978300762\n")
    log, _ = prepare(tmp_path / "ratings.dat", "--format", "movielens")
    assert log.num_interactions == 3
    assert log.item_ids.values.to_list() == [10, 20]
    rated, _ = prepare(tmp_path / "ratings.dat", "--format", "movielens", "--min-rating", 4)
    assert rated.num_interactions == 2


@pytest.mark.parametrize(
    ("data", "flags", "words"),
    [
        (
            "movielens-1m",
            ("--min-rating", 4),
            "--min-rating has no effect on the public data set movielens-1m",
        ),
        ("a.seq.txt", ("--duplicates", "first"), "--duplicates has no effect on files of sequences"),
        (
            "a.dat",
            ("--format", "movielens", "--user", "who"),
            "--user has no effect on files of the format movielens",
        ),
    ],
)
def test_a_flag_without_effect_is_refused(data, flags, words, tmp_path, capsys):
    told = run_here("prepare.py", "--data", data, "--out", tmp_path / "log", *flags, capsys=capsys)
    assert_one_sentence(told, words)


def test_ratings_below_a_bound_are_left_out(prepare, tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating\n1,5,4.5\n1,6,2\n2,5,5\n")
    log, _ = prepare(tmp_path / "a.csv", "--min-rating", 4)
    assert log.num_interactions == 2


def test_public_data_are_listed(capsys):
    outcome = run_here("prepare.py", "--list", capsys=capsys)
    assert outcome.code == 0
    assert "movielens-1m" in outcome.out
    assert "steam" in outcome.out


def test_what_is_missing_is_told(capsys, tmp_path):
    lacking = run_here("prepare.py", "--data", "a.csv", capsys=capsys)
    assert lacking.code == 2
    assert "--out" in lacking.err
    unknown = run_here("prepare.py", "--data", "movielens-1n", "--out", tmp_path / "log", capsys=capsys)
    assert_one_sentence(unknown, "movielens-1n", "did you mean movielens-1m")


def test_another_folder_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("\n".join(["user,item,time", *LINES]) + "\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    told = run_here("prepare.py", "--data", tmp_path / "a.csv", "--out", tmp_path / "mine", capsys=capsys)
    assert_one_sentence(told, str(tmp_path / "mine"), "not a saved log")
    told = run_here("prepare.py", "--data", "unread.csv", "--out", tmp_path / "mine", capsys=capsys)
    assert_one_sentence(told, str(tmp_path / "mine"), "not a saved log")


def test_a_file_without_a_header_in_another_tongue(prepare, tmp_path):
    (tmp_path / "a.txt").write_text("02.01.1970;8;ann\n01.01.1970;9;ann\n01.01.1970;;bob\n")
    places = ("--no-header", "--user", 2, "--item", 1, "--time", 0)
    log, shown = prepare(
        tmp_path / "a.txt", *places, "--separator", ";", "--time-format", "%d.%m.%Y", "--missing", "drop"
    )
    assert f"note: {tmp_path / 'a.txt'}: rows without a user or an item left out: 1\n" in shown
    assert log.users.values.to_list() == ["ann"]
    assert log.item_ids.values.to_list() == [9, 8]
    assert log.times.tolist() == [0, 86400]
    (tmp_path / "a.txt").write_text("ann 1\t5\n")
    log, _ = prepare(tmp_path / "a.txt", "--no-header", "--user", 0, "--item", 1, "--separator", "\\t")
    assert log.users.values.to_list() == ["ann 1"]


def test_flags_for_what_messages_advise(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("196,242\n")
    told = run_here("prepare.py", "--data", tmp_path / "a.csv", "--out", tmp_path / "log", capsys=capsys)
    assert_one_sentence(told, "--no-header --user 0 --item 1")
    told = run_here(
        "prepare.py", "--data", "movielens-1m", "--out", tmp_path / "log", "--no-header", capsys=capsys
    )
    assert_one_sentence(told, "--no-header has no effect on the public data set movielens-1m")
