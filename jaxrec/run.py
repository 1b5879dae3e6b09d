"""A run: fitted parameters with all that is needed to use them, in memory or in one directory."""

import dataclasses
import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrec import artifact
from jaxrec.config import Config
from jaxrec.devices import processes
from jaxrec.devices.sharding import available_mesh, place_params
from jaxrec.lists.answers import list_frame_of, read_candidates, score_frame_of, similar_frame_of, vectors_of
from jaxrec.lists.bulk import ListRequest
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.protocol import ProtocolCard, chosen_by
from jaxrec.recommender import Recommender, drawing
from jaxrec.typing import Params, PRNGKey

if TYPE_CHECKING:
    import polars

    from jaxrec.data.histories import OnUnknown
    from jaxrec.data.interactions import Interactions
    from jaxrec.data.splits import Split


@dataclasses.dataclass(eq=False)
class Run:
    """A fitted recommender with its config, ids and data card. Made by ``jaxrec.fit`` or ``jaxrec.load``.

    It evaluates and recommends on the devices that ``config.parallel`` names, users spread over all of them and
    the item table split as in training. A machine need not have as many as the run was trained on: where there
    are fewer, it takes those there are, down to one, and the results stay the same to rounding.

    Attributes:
      config: the resolved config.
      recommender: the model, with the size of the catalogue filled in.
      params: its parameters.
      catalogue: external ids and metadata of the items (a log without interactions).
      item_counts: int64 ``[num_items + 1]``, interactions of each item in the training part.
      data: the data card: name, fingerprint, sizes, split.
      split: the data, for ``evaluate``; ``None`` for a run that was loaded without.
      workdir: where it is saved, if it is.
      training_seconds: time that training took, evaluations included.
      interrupted: number of the signal that ended training early, else 0; fitting again goes on from there.
    """

    config: Config
    recommender: Recommender
    params: Params
    catalogue: "Interactions"
    item_counts: np.ndarray
    data: dict[str, Any]
    split: "Split | None" = None
    workdir: Path | None = None
    training_seconds: float = 0.0
    interrupted: int = 0
    _placed: tuple[Params, Params] | None = dataclasses.field(default=None, init=False, repr=False)

    def __repr__(self) -> str:
        stopped = ", training was interrupted" if self.interrupted else ""
        name = type(self.recommender).__name__
        return f"Run({name} on {self.data['data']}, {self.workdir or 'not saved'}{stopped})"

    @functools.cached_property
    def key(self) -> PRNGKey:
        """The fixed key of stochastic models at inference; the same user gets the same list everywhere."""
        return jax.random.key(self.config.seed, impl="threefry2x32")

    @functools.cached_property
    def mesh(self) -> Mesh | None:
        """The devices of ``config.parallel`` that there are; ``None`` for one device."""
        return available_mesh(self.config.parallel)

    def _params_on_mesh(self) -> Params:
        """The parameters as they lie on ``mesh``, copied there once."""
        if self.mesh is None:
            return self.params
        if self._placed is None or self._placed[0] is not self.params:
            self._placed = self.params, place_params(self.params, self.mesh)
        return self._placed[1]

    def save(self, directory: str | Path) -> "Run":
        """Writes the run to a directory, and returns it with ``workdir`` set.

        Raises:
          ValueError: the directory holds another run, or checkpoints of a training that this run did not come from.
          OSError: it cannot be written to.
        """
        directory = Path(directory)
        own = self.workdir is not None and Path(self.workdir).resolve() == directory.resolve()
        check = artifact.check if own else artifact.check_free
        processes.on_main(lambda: check(directory, self.config, self.data))
        completed = artifact.completed(directory) if own else None
        artifact.write(directory, self.config, self.params, self.catalogue, self.item_counts, self.data)
        if completed is not None:
            artifact.complete(directory, completed)
        self.workdir = directory
        return self

    def evaluate(
        self,
        part: Literal["validation", "test"] = "test",
        *,
        exclude_seen: bool | None = None,
        split: "Split | None" = None,
        num_samples: int = 1,
        save: bool = True,
        per_user: bool = False,
    ) -> dict[str, Any]:
        """All metrics of the ranking of every item, flat; ``groups``, ``intervals`` and ``protocol`` besides.

        Items that never occur in the training part are ranked like all others, though ``recommend`` leaves them out;
        ``targets_never_trained`` says how many targets are such items.

        Args:
          part: the part whose targets are ranked.
          exclude_seen: whether the whole history is left out of the ranking; ``None`` is the config's.
          split: the data, for a run loaded without; its fingerprint must be that of the training data.
          num_samples: draws averaged, of a model that can draw; 1 asks one that draws on request only (V-GenAtt)
            for its mean.
          save: whether to write the result below ``workdir/evaluations``; where that cannot be, it is only warned.
          per_user: whether to add ``"per_user"``, a frame ``user_id, rank, hr@5, ...`` of each user's rank (from 1;
            a half where scores are equal) and values, means where a user has several targets, for
            ``jaxrec.metrics.paired_test`` between two runs on the same data. It is not written.

        Raises:
          ValueError: there is no data, or other data than the run was fitted on.
        """
        from jaxrec.evaluation import as_dict, evaluate_split, values_of_users

        split, samples = self._checked_split(split), self._samples(num_samples)
        exclude_seen = self.config.evaluation.exclude_seen if exclude_seen is None else exclude_seen
        evaluation = evaluate_split(
            self.recommender,
            self._params_on_mesh(),
            split,
            part,
            exclude_seen=exclude_seen,
            batch_size=self.config.evaluation.batch_size,
            key=self.key,
            num_samples=samples,
            cutoffs=self.config.evaluation.cutoffs,
            mesh=self.mesh,
        )
        card = ProtocolCard(
            **self.data,
            part=part,
            exclude_seen=exclude_seen,
            seed=self.config.seed,
            chosen_by=chosen_by(
                trained=not isinstance(self.recommender, PopularityRecommender),
                validated=len(split.validation) > 0,
                exclude_seen=self.config.evaluation.exclude_seen,
                select_by=self.config.evaluation.select_by,
            ),
            num_samples=samples,
        )
        never_trained = {"targets_never_trained": split.never_trained(part, self.item_counts)}
        result = {**as_dict(evaluation), **never_trained, "protocol": card.as_dict()}
        if save and self.workdir is not None:
            artifact.keep_evaluation(self.workdir, result)
        return {**result, "per_user": values_of_users(evaluation, split, part)} if per_user else result

    def _samples(self, num_samples: int) -> int:
        """The samples that are taken: one, and a warning, where several are asked of a model that draws nothing."""
        if num_samples > 1 and not drawing(self.recommender).stochastic:
            warnings.warn(
                f"num_samples is {num_samples}, but {type(self.recommender).__name__} draws nothing at inference: it is"
                " asked once",
                stacklevel=3,
            )
            return 1
        return num_samples

    def given_from_python(self) -> str:
        """Words for a run whose config has no data section."""
        return f"fitted on data given from Python under the name {self.data['data']!r}"

    def _checked_split(self, split: "Split | None") -> "Split":
        split = self.split if split is None else split
        if split is None:
            if self.config.data is None:
                raise ValueError(
                    f"this run was {self.given_from_python()}, and loaded without it; pass split=, made as for the"
                    " training"
                )
            raise ValueError(
                "this run was loaded without its data; pass split=, made as for the training"
                " (jaxrec.data.load_split(run.config.data))"
            )
        if split is not self.split:
            card = artifact.data_card(split)
            other = artifact.data_differences(self.data, {**card, "data": self.data["data"]})  # by any name
            if other:
                raise ValueError(
                    f"the run was fitted on {self.data['data']}, and this is other data, {card['data']}"
                    f" ({'; '.join(other)}); evaluate on the same split"
                )
            self.split = split
        return split

    def recommend(
        self,
        histories: Any,
        *,
        k: int = 10,
        exclude_seen: bool = True,
        candidates: Any = None,
        on_unknown: "OnUnknown" = "warn",
        num_samples: int = 1,
        with_spread: bool = False,
        batch_size: int | None = None,
        with_titles: bool = False,
    ) -> "polars.DataFrame":
        """Lists for histories under your own ids: a frame ``user_id, item_id, score, rank``, rank 1 the best.

        Items that never occur in the training part are not recommended. An empty history gets the most
        popular items.

        Args:
          histories: ``{user: [item, ...]}`` (oldest first; also a pandas Series of lists), a list of lists, an
            ``Interactions``, or a polars or pandas frame with one row an event, or one row a user with lists. A
            column of times (``ts``, ``timestamp``, ``date``, ...) puts a user's events in order; without one the
            order of the rows counts.
          k: longest list; it is shorter where fewer items are left.
          exclude_seen: whether items of the history, however long, are left out.
          candidates: external ids of the only items to choose from.
          on_unknown: what to do with items that are not in the catalogue: ``ignore``, ``warn`` or ``raise``.
          num_samples: draws averaged, of a model that can draw (see ``evaluate``).
          with_spread: whether to add a column ``spread``, the standard deviation of the item's score over the
            samples; 0 for a model without randomness and for the items that an empty history gets.
          batch_size: histories of one dispatch, of all devices together; ``None`` is the config's.
          with_titles: whether to add a column ``title``, if the items have any.

        Raises:
          ValueError: ``k`` is below 1, the spread of one sample is asked for, an item or all candidates are
            unknown, or the form is not understood.
        """
        samples = self._samples(num_samples)
        if with_spread and drawing(self.recommender).stochastic and num_samples < 2:
            raise ValueError(
                f"num_samples is {num_samples}, and the spread of the scores needs at least 2 samples; pass a larger"
                " num_samples, or leave with_spread out"
            )
        request = ListRequest(
            k=k,
            exclude_seen=exclude_seen,
            candidates=read_candidates(self, candidates, on_unknown),
            num_samples=samples,
            with_spread=with_spread,
            batch_size=batch_size or self.config.evaluation.batch_size,
        )
        return list_frame_of(self, histories, request, on_unknown, with_titles)

    def similar_items(
        self, items: Any, k: int = 10, *, on_unknown: "OnUnknown" = "warn", with_titles: bool = False
    ) -> "polars.DataFrame":
        """The nearest items of each item: a frame ``item_id, similar_item_id, score``, best first.

        The score is the cosine of ``item_vectors``. Items that never occur in the training part are neither found nor
        asked about.

        Args:
          items: a list of external ids.
          k: items for each; fewer where the catalogue is smaller.
          on_unknown: what to do with items that are not in the catalogue, or never occur in the training part:
            ``ignore``, ``warn`` or ``raise``.
          with_titles: whether to add a column ``title``, of the similar item, if the items have any.

        Raises:
          ValueError: ``k`` is below 1, there is no item, or one is unknown and ``on_unknown="raise"``.
        """
        return similar_frame_of(self, items, k, on_unknown, with_titles)

    def item_vectors(self) -> tuple["polars.Series", np.ndarray]:
        """External ids ``[n]`` of all items and their vectors in the ranking space, ``[n, D]`` float32.

        Columns that hold parts of the score only, such as STOSA's norms, are left out. Of items that never occur in
        the training part the vector is as it was drawn.
        """
        return vectors_of(self)

    def score(
        self,
        histories: Any,
        items: Any,
        *,
        on_unknown: "OnUnknown" = "warn",
        num_samples: int = 1,
        with_titles: bool = False,
    ) -> "polars.DataFrame":
        """Scores of given pairs: a frame ``user_id, item_id, score`` in the order asked for.

        Scores are those of ``recommend``, also of items of the history and of those that never occur in the training
        part; after an empty history, an item's share of the training interactions. They are comparable within a user.

        Args:
          histories: as in ``recommend``.
          items: a list of external ids for all users, or ``{user: [item, ...]}`` with a list for each.
          on_unknown: what to do with items that are not in the catalogue: ``ignore``, ``warn`` or ``raise``.
          num_samples: draws averaged, of a model that can draw (see ``evaluate``).
          with_titles: whether to add a column ``title``, if the items have any.

        Raises:
          ValueError: there is no user or item, a user has no list, an item is unknown and ``on_unknown="raise"``, or
            the form is not understood.
        """
        samples = self._samples(num_samples)
        return score_frame_of(self, histories, items, on_unknown, samples, with_titles)

    def export(
        self, path: str | Path, *, k: int = 10, platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")
    ) -> Path:
        """Writes ``recommend`` as one file that runs without jaxrec; see ``jaxrec.export``."""
        from jaxrec.export import export_run

        return export_run(self, Path(path), k=k, platforms=platforms)


def load(workdir: str | Path, *, split: "Split | None" = None) -> Run:
    """Reads a run back from its directory, onto whatever devices there are now.

    A run that was trained on more devices than there are takes all of them (see ``Run``); it is no error. Where a
    training has not come to an end, a warning says so.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: its parts do not fit together, or ``split`` is other data.
    """
    workdir = Path(workdir)
    read = artifact.read(workdir)
    fields = {field.name: getattr(read, field.name) for field in dataclasses.fields(read)}
    run = Run(**fields, workdir=workdir)
    if (workdir / artifact.CHECKPOINTS).exists() and artifact.completed(workdir) is None:
        warnings.warn(
            f"the training in {workdir} has not come to an end (it is under way, or was cut off), and these are the"
            " weights from before; fit or train.py on the same directory goes on with it",
            stacklevel=2,
        )
    if split is not None:
        run._checked_split(split)
    return run


__all__ = ["Run", "load"]
