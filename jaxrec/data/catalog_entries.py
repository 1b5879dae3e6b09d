"""The table of named data sets: addresses as their publishers document them, and how each is read.

Nothing of the data is part of jaxrec. ``source`` is the page on which the publisher documents the address.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxrec.data.formats import read_amazon, read_amazon_items, read_movielens
from jaxrec.data.identifiers import IdMap
from jaxrec.data.interactions import Interactions
from jaxrec.data.item_readers import read_items
from jaxrec.data.items import ItemMetadata
from jaxrec.data.readers import read_interactions
from jaxrec.data.steam import read_steam, read_steam_items


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One named data set.

    Attributes:
      name: what ``load`` takes.
      description: one line.
      terms: one line; the publisher's own words count.
      source: the publisher's page that documents the files.
      url: the interactions, a zip or tar archive or a single file.
      read: ``read(path, name=...)`` makes the log; ``path`` is the file, or the folder of an archive.
      md5_url: the publisher's MD5 of ``url``, where there is one.
      items_url: titles and categories, where they are a file of their own.
      read_items: ``read_items(path, item_ids)`` reads that file.
      items_by_default: whether that file is small enough to be fetched without asking.
    """

    name: str
    description: str
    terms: str
    source: str
    url: str
    read: Callable[..., Interactions]
    md5_url: str | None = None
    items_url: str | None = None
    read_items: Callable[[Path, IdMap], ItemMetadata] | None = None
    items_by_default: bool = False


MOVIELENS = "https://files.grouplens.org/datasets/movielens"
MOVIELENS_TERMS = (
    "GroupLens, University of Minnesota: research use with acknowledgement (Harper and Konstan 2015), no "
    "commercial use without permission; see the README of the release"
)
MOVIELENS_RELEASES = {
    "movielens-100k": ("ml-100k", "100,000 ratings of 943 users for 1,682 films, 1998"),
    "movielens-1m": ("ml-1m", "1,000,209 ratings of 6,040 users for 3,706 films, 2003"),
    "movielens-10m": ("ml-10m", "10 million ratings for 10,000 films, 2009"),
    "movielens-20m": ("ml-20m", "20,000,263 ratings of 138,493 users for 27,278 films, 2015"),
    "movielens-25m": ("ml-25m", "25 million ratings for 62,000 films, 2019"),
    "movielens-32m": ("ml-32m", "32,000,204 ratings of 200,948 users for 87,585 films, 2023"),
    "movielens-latest-small": ("ml-latest-small", "about 100,000 recent ratings; changes over time"),
}

AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
AMAZON_2014_CATEGORIES = (
    "Amazon_Instant_Video", "Apps_for_Android", "Automotive", "Baby", "Beauty", "Books",
    "CDs_and_Vinyl", "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music",
    "Electronics", "Grocery_and_Gourmet_Food", "Health_and_Personal_Care", "Home_and_Kitchen",
    "Kindle_Store", "Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden",
    "Pet_Supplies", "Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games",
    "Video_Games",
)  # fmt: skip

MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets/data"
AMAZON_2018_CATEGORIES = (
    "AMAZON_FASHION", "All_Beauty", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Books",
    "CDs_and_Vinyl", "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music",
    "Electronics", "Gift_Cards", "Grocery_and_Gourmet_Food", "Home_and_Kitchen",
    "Industrial_and_Scientific", "Kindle_Store", "Luxury_Beauty", "Magazine_Subscriptions",
    "Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies",
    "Prime_Pantry", "Software", "Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games",
    "Video_Games",
)  # fmt: skip
AMAZON_2023_CATEGORIES = (
    "All_Beauty", "Arts_Crafts_and_Sewing", "Automotive", "Baby_Products", "Beauty_and_Personal_Care",
    "Books", "CDs_and_Vinyl", "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry",
    "Electronics", "Gift_Cards", "Grocery_and_Gourmet_Food", "Health_and_Household", "Home_and_Kitchen",
    "Industrial_and_Scientific", "Kindle_Store", "Magazine_Subscriptions", "Movies_and_TV",
    "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies", "Software",
    "Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games", "Video_Games", "Unknown",
)  # fmt: skip
AMAZON_TERMS = "McAuley lab, UC San Diego: offered for research with citation ({}); no open licence is stated"

MOVIETWEETINGS = "https://raw.githubusercontent.com/sidooms/MovieTweetings/master/snapshots/100K"


def entries() -> dict[str, Dataset]:
    """All named data sets by name."""
    found = [*_movielens(), *_amazon_2014(), *_amazon_2018(), *_amazon_2023(), *_others()]
    return {dataset.name: dataset for dataset in found}


def _movielens() -> Iterator[Dataset]:
    for name, (release, description) in MOVIELENS_RELEASES.items():
        yield Dataset(
            name=name,
            description=f"MovieLens: {description}; titles and genres",
            terms=MOVIELENS_TERMS,
            source="https://grouplens.org/datasets/movielens/",
            url=f"{MOVIELENS}/{release}.zip",
            md5_url=f"{MOVIELENS}/{release}.zip.md5",
            read=read_movielens,
        )


def _slug(category: str) -> str:
    return category.lower().replace("_", "-")


def _amazon_2014() -> Iterator[Dataset]:
    for category in AMAZON_2014_CATEGORIES:
        yield Dataset(
            name=f"amazon-2014-{_slug(category)}",
            description=f"Amazon reviews 1996-2014, {category.replace('_', ' ')}, 5-core",
            terms=AMAZON_TERMS.format("He and McAuley 2016; McAuley et al. 2015"),
            source="https://jmcauley.ucsd.edu/data/amazon/index_2014.html",
            url=f"{AMAZON_2014}/reviews_{category}_5.json.gz",
            read=read_amazon,
            items_url=f"{AMAZON_2014}/meta_{category}.json.gz",
            read_items=_read_amazon_items,
        )


def _amazon_2018() -> Iterator[Dataset]:
    for category in AMAZON_2018_CATEGORIES:
        yield Dataset(
            name=f"amazon-2018-{_slug(category).removeprefix('amazon-')}",
            description=f"Amazon reviews 1996-2018, {category.replace('_', ' ')}, 5-core",
            terms=AMAZON_TERMS.format("Ni, Li and McAuley 2019"),
            source="https://nijianmo.github.io/amazon/index.html",
            url=f"{MCAULEY}/amazon_v2/categoryFilesSmall/{category}_5.json.gz",
            read=read_amazon,
            items_url=f"{MCAULEY}/amazon_v2/metaFiles2/meta_{category}.json.gz",
            read_items=_read_amazon_items,
        )


def _amazon_2023() -> Iterator[Dataset]:
    for category in AMAZON_2023_CATEGORIES:
        yield Dataset(
            name=f"amazon-2023-{_slug(category)}",
            description=f"Amazon reviews 1996-2023, {category.replace('_', ' ')}, 5-core, ratings only",
            terms=AMAZON_TERMS.format("Hou et al. 2024, arXiv 2403.03952"),
            source="https://amazon-reviews-2023.github.io/data_processing/5core.html",
            url=f"{MCAULEY}/amazon_2023/benchmark/5core/rating_only/{category}.csv.gz",
            read=read_amazon,
            items_url=f"{MCAULEY}/amazon_2023/raw/meta_categories/meta_{category}.jsonl.gz",
            read_items=_read_amazon_items,
        )


def _others() -> Iterator[Dataset]:
    yield Dataset(
        name="steam",
        description="Steam: 7.8 million reviews of games, 2010-2018, by user name and day; not filtered",
        terms="McAuley lab, UC San Diego: cite Kang and McAuley 2018; no open licence is stated",
        source="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
        url=f"{MCAULEY}/steam/steam_reviews.json.gz",
        read=read_steam,
        items_url=f"{MCAULEY}/steam/steam_games.json.gz",
        read_items=lambda path, item_ids: read_steam_items(path),
        items_by_default=True,
    )
    yield Dataset(
        name="gowalla",
        description="Gowalla: 6.4 million check-ins at places, 2009-2010; repeats are natural; not filtered",
        terms="SNAP, Stanford: cite Cho, Myers and Leskovec 2011; no open licence is stated",
        source="https://snap.stanford.edu/data/loc-gowalla.html",
        url="https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz",
        read=_read_gowalla,
    )
    yield Dataset(
        name="movietweetings-100k",
        description="MovieTweetings: 100,000 film ratings from tweets, 2013, fixed snapshot; not filtered",
        terms="MIT, (c) Simon Dooms; cite Dooms, De Pessemier and Martens 2013",
        source="https://github.com/sidooms/MovieTweetings",
        url=f"{MOVIETWEETINGS}/ratings.dat",
        read=_read_movietweetings,
        items_url=f"{MOVIETWEETINGS}/movies.dat",
        read_items=_read_movietweetings_items,
        items_by_default=True,
    )


def _read_amazon_items(path: Path, item_ids: IdMap) -> ItemMetadata:
    return read_amazon_items(path, item_ids=item_ids)


def _read_gowalla(path: Path, *, name: str) -> Interactions:
    """user, time, latitude, longitude, place, by tabs and without a header."""
    columns = {"user": 0, "time": 1, "item": 4}
    return read_interactions(
        path, **columns, separator="\t", has_header=False, quote=None, duplicates="keep", name=name
    )


def _read_movietweetings(path: Path, *, name: str) -> Interactions:
    """user::film::rating::time, films by IMDb number, leading zeros kept."""
    columns = {"user": 0, "item": 1, "rating": 2, "time": 3}
    return read_interactions(path, **columns, separator="::", has_header=False, name=name)


def _read_movietweetings_items(path: Path, item_ids: IdMap) -> ItemMetadata:
    """film::title (year)::genres."""
    return read_items(path, item=0, title=1, categories=2, separator="::", has_header=False)


__all__ = ["Dataset", "entries"]
