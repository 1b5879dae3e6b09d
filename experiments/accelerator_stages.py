"""The stages of ``accelerator.py``: what each runs, and how long it may take."""

import dataclasses
from pathlib import Path

ENCODERS = ("sasrec", "stosa", "awrsr", "vgenatt", "dgenatt")
DIFFUSION = ("diffurec", "diffurecsys", "diffurecsys-cached")
BENCHMARK, COMPARE = "benchmark.py", "compare.py"
SMALL_DATA = ("--data", "simulated", "--data.simulated-users", "80", "--data.simulated-items", "60")
SMALL_SIZES = (
    *("--width", "8", "--max-length", "8", "--epochs", "1", "--timing-rounds", "0"),
    *("--set", "all.train.batch_targets=256"),
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """Commands that belong together.

    Attributes:
      name: on the command line.
      what: it is for, in words.
      limit_seconds: all its commands may take; what is not done by then goes on with the next call.
      commands: script and flags, one after the other.
    """

    name: str
    what: str
    limit_seconds: float
    commands: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the stages are made of.

    Attributes:
      out: folder of the results.
      beauty: Amazon Beauty, a file or a folder of prepare.py.
      ml_1m: MovieLens-1M, likewise.
      seeds: of the full trainings, separated by commas.
      small: everything tiny, to see whether it runs.
    """

    out: Path
    beauty: str
    ml_1m: str
    seeds: str = "0,1,2"
    small: bool = False

    def stages(self) -> list[Stage]:
        """All, in the order in which they are worth having."""
        every, types = ENCODERS + DIFFUSION, ("--dtypes", "float32,bfloat16")
        fast = ("--dtypes", "bfloat16", "--feeds", "device")
        return [
            self._benchmark(
                "check", "does everything run here?", 240, self._quick_check(), json="check.json"
            ),
            self._benchmark(
                "types",
                "training and peak of every model, float32 and bfloat16",
                900,
                self._training(self.ml_1m, every, *types),
                self._training(self.beauty, every, *types),
            ),
            self._benchmark(
                "steps",
                "S, the steps of one dispatch",
                400,
                self._training(
                    self.ml_1m,
                    ("sasrec",),
                    *fast,
                    "--steps",
                    self._some("1,2,4,8,16,32,64", "1,2"),
                    "--batch-targets",
                    self._some("4096", "64"),
                ),
            ),
            self._benchmark(
                "batches",
                "targets of one step",
                400,
                self._training(
                    self.ml_1m,
                    ("sasrec",),
                    *fast,
                    *("--batch-targets", self._some("4096,16384,65536,262144", "128,256")),
                    *("--max-length", self._some("200", "8")),
                ),
            ),
            self._benchmark(
                "fused",
                "fused dot-product attention, at two lengths",
                400,
                *(
                    self._training(
                        self.ml_1m,
                        ("sasrec",),
                        *fast,
                        *("--fused", "--batch-targets", self._some("65536", "128")),
                        *("--max-length", length),
                    )
                    for length in (("8",) if self.small else ("200", "1024"))
                ),
            ),
            self._benchmark(
                "feeds",
                "batches made on the host or on the device, under jit and pmap",
                400,
                self._training(
                    self.ml_1m,
                    ("sasrec",),
                    "--feeds",
                    "host,device",
                    "--modes",
                    "jit,pmap",
                    "--dtypes",
                    "bfloat16",
                ),
            ),
            self._benchmark(
                "recommend",
                "lists for all users, and for one",
                500,
                (
                    "--sections",
                    "recommend",
                    *self._data(self.beauty),
                    "--presets",
                    self._names(every),
                    *types,
                ),
                (
                    "--sections",
                    "recommend",
                    *self._data(self.ml_1m),
                    "--presets",
                    self._names(ENCODERS),
                    *types,
                ),
            ),
            self._benchmark(
                "softmax",
                "large catalogues",
                500,
                (
                    *("--sections", "softmax", *types),
                    *("--softmax-items", self._some("10000,100000,1000000,10000000", "2000,4000")),
                    *("--sampled-items", self._some("1000000,10000000", "3000")),
                ),
            ),
            self._benchmark(
                "diffusion",
                "training and 32-step lists of the diffusion models at equal sizes",
                500,
                ("--sections", "diffusion", *self._data(self.beauty), *types),
            ),
            self._benchmark(
                "profile",
                "a trace for TensorBoard or Perfetto",
                240,
                self._training(
                    self.ml_1m,
                    ("sasrec", "diffurec"),
                    "--dtypes",
                    "bfloat16",
                    "--trace",
                    str(self.out / "trace"),
                ),
                json="profile.json",
            ),
            self._comparison("train-beauty", ENCODERS, self.beauty, 1800),
            self._comparison("train-ml-1m", ENCODERS, self.ml_1m, 1800, *self._length("200")),
            self._comparison("train-diffusion-beauty", DIFFUSION, self.beauty, 2700),
            self._comparison("train-diffusion-ml-1m", DIFFUSION, self.ml_1m, 2700),
        ]

    def _benchmark(
        self, name: str, what: str, limit: float, *flags: tuple[str, ...], json: str = "benchmark.json"
    ) -> Stage:
        small = ("--quick",) if self.small else ()
        path = str(self.out / json)
        return Stage(name, what, limit, tuple((BENCHMARK, *one, *small, "--json", path) for one in flags))

    def _comparison(self, name: str, presets: tuple[str, ...], data: str, limit: float, *flags: str) -> Stage:
        what = (
            f"{', '.join(presets)} trained {'a little' if self.small else f'in full with seeds {self.seeds}'}"
        )
        small = ("--seeds", "0", *SMALL_DATA, *SMALL_SIZES)
        large = ("--seeds", self.seeds, "--data", data, "--seen-included", *flags)
        command = (
            *(COMPARE, "--presets", ",".join(presets), "--workdir", str(self.out / "runs" / name)),
            *("--out", str(self.out / f"compare-{name.removeprefix('train-')}")),
            *(small if self.small else large),
        )
        return Stage(name, what, limit, (command,))

    def _quick_check(self) -> tuple[str, ...]:
        return ("--quick", "--sections", "training,recommend")

    def _training(self, data: str, presets: tuple[str, ...], *flags: str) -> tuple[str, ...]:
        return ("--sections", "training", *self._data(data), "--presets", self._names(presets), *flags)

    def _data(self, data: str) -> tuple[str, ...]:
        return ("--data", "simulated", "--simulated-users", "80") if self.small else ("--data", data)

    def _names(self, presets: tuple[str, ...]) -> str:
        return presets[0] if self.small else ",".join(presets)

    def _some(self, large: str, small: str) -> str:
        return small if self.small else large

    def _length(self, length: str) -> tuple[str, ...]:
        return ("--max-length", length)


__all__ = ["BENCHMARK", "COMPARE", "DIFFUSION", "ENCODERS", "Plan", "Stage"]
