"""`adaptive-sleep demo`, `train`, `report` and `bench`: commands that make something new.

The work is done in demo.py, report_given.py, adaptive_sleep.training and the benchmarks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptive_sleep.experiments.console import note, print_json, print_table, progress
from adaptive_sleep.streams.errors import InputError

if TYPE_CHECKING:
    from adaptive_sleep.experiments.demo import DemoResult

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def demo(
    out: Annotated[
        Path, typer.Option(help="The folder to write; an earlier demo there is replaced.")
    ] = Path("adaptive-sleep-demo"),
    recipe: Annotated[
        str, typer.Option(help="What to run: a TOML file, or the name of a shipped one.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Replay bundled recordings under several policies and say whether sleeping helps.

    First windows of the task chain, where it does, then real telemetry; or what --recipe says.
    Writes the runs and a report for each into --out. Takes about a minute.
    """
    from adaptive_sleep.experiments.demo import DEMOS, result_json, run_demo

    if recipe:
        with progress("demo") as advance:
            result = run_demo(out, recipe=recipe, on_progress=advance)
        if as_json:
            print_json(result_json(result))
        else:
            _show(result)
        return
    found = {}
    for name, plan in DEMOS.items():
        with progress(f"demo, {name}") as advance:
            result = run_demo(out / name, recipe=plan, on_progress=advance)
        found[name] = result_json(result)
        if not as_json:
            print(f"\n{name}\n")
            _show(result)
    if as_json:
        print_json(found)


def _show(result: DemoResult) -> None:
    from adaptive_sleep.experiments.demo import table_columns, table_rows

    print_table(table_columns(result), table_rows(result))
    print()
    for sentence in result.reading:
        print(f"- {sentence}")
    print(f"\nThe report: {result.report}")


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe: a TOML file, or the name of a shipped one.")
    ] = None,
    recording: Annotated[str | None, typer.Option(help="A recording to train on.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="series or tokens [default: as the recording].")
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="The model to write, name.safetensors; for a task, the run's folder."),
    ] = Path("model.safetensors"),
    seed: Annotated[
        int | None,
        typer.Option(help="Of a task's recipe [default: 0]; a recording's holds its own."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of a task's training: cpu, or cuda [default: cpu].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model from a recipe, or on a recording with a preset. Takes minutes.

    The recipe of a task ([task]) trains in a folder, and a killed run goes on where it was;
    `torchrun --nproc-per-node 2 -m adaptive_sleep.experiments.cli train ...` shares out batches.

    A preset trains on the first 70 % of the rows, keeps the weights that do best on the next 15 %,
    and leaves the last 15 % to test on.
    """
    if (recipe is None) == (recording is None):
        raise InputError("train: give a recipe, or --recording (one of the two)")
    if recipe is not None and preset is not None:
        raise InputError("--preset: goes with --recording; a recipe says everything itself")
    from adaptive_sleep.experiments.finding import find_trained

    path, said = (None, {}) if recipe is None else find_trained(recipe, "train")
    if path is not None and "task" in said:
        _train_task(path, out, seed or 0, device or "cpu", as_json)
        return
    for option, given in (("--seed", seed), ("--device", device)):
        if given is not None:
            raise InputError(
                f"{option} {given}: goes with the recipe of a task; a recording's recipe holds its "
                "seed and trains on the CPU"
            )
    if out.exists():
        raise InputError(f"--out {out}: exists already; choose another name")
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: a model is a file named *.safetensors")
    from adaptive_sleep.checkpoint import describe_model
    from adaptive_sleep.training import train_preset, train_recipe

    with progress("training") as advance:
        if path is not None:
            trained = train_recipe(path, out, on_progress=advance)
        else:
            trained = train_preset(str(recording), preset, out, on_progress=advance)
    described = describe_model(trained.path)
    losses = {str(passes): loss for passes, loss in trained.validation.items()}
    if as_json:
        found = {"model": str(trained.path), "hash": described["hash"], "step": trained.step}
        print_json({**found, "validation": losses, "seconds": trained.seconds})
        return
    print(f"{trained.path}: the weights of step {trained.step:,}, in {trained.seconds:.0f} s")
    for passes, loss in losses.items():
        print(f"validation loss with {passes} pass(es): {loss:.5g}")


def _train_task(recipe: Path, out: Path, seed: int, device: str, as_json: bool) -> None:
    from adaptive_sleep.learning import read_task_recipe
    from adaptive_sleep.side_by_side import joined
    from adaptive_sleep.task_training import learn

    if out.suffix == ".safetensors":
        raise InputError(f"--out {out}: a task is trained in a folder; name one")
    with joined() as share, progress("training") as advance:
        shown = advance if share.rank == 0 else None
        read = read_task_recipe(recipe)
        learned = learn(read, out, seed=seed, share=share, device=device, on_progress=shown)
    if share.rank:
        return
    last = learned.log.row(-1, named=True)
    found = {"model": str(learned.path), "hash": learned.model.hash, "step": last["step"]}
    if as_json:
        scores = {name: value for name, value in last.items() if name.startswith("N=")}
        print_json({**found, "validation": scores, "seconds": learned.seconds})
        return
    print(
        f"{learned.path}: {last['step']:,} steps, {learned.tokens:,} tokens, "
        f"loss {last['loss']:.4f}"
    )


def report(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Finished runs, the first is the reference; or one comparison: its JSON, its "
            "folder, a kept result; or the storage of a study, sqlite:///FILE.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="What the page is called.")] = "",
    study: Annotated[
        str | None, typer.Option(help="Its name, where the storage holds several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about runs, a comparison, or a study.

    What is shown can be downloaded from the pages of comparisons and studies, as Parquet.
    """
    from adaptive_sleep.experiments.report_given import write_given

    written = write_given(given, out, title=title, study=study)
    if as_json:
        print_json(written)
    else:
        print(written["report"])


bench = typer.Typer(
    help="Measure speed, after checking that the results are right.",
    epilog="Example: adaptive-sleep bench kernels --json",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@bench.command(epilog="Example: adaptive-sleep bench kernels --json")
def kernels(
    backend: Annotated[
        str, typer.Option(help="auto, native (compiled), triton (on a GPU), or torch.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    against: Annotated[
        str, typer.Option(help="transformers (torch), or fla (on a GPU, in bfloat16).")
    ] = "transformers",
    as_json: Json = False,
) -> None:
    """Time the gated delta rule beside transformers' or flash-linear-attention's form of it, after
    checking ours.

    Takes a few minutes, and needs the extra `bench` (or `fla`).
    """
    from adaptive_sleep.experiments.bench_kernels import run_bench

    report = note if sys.stderr.isatty() else None
    found = run_bench(backend=backend, device=device, against=against, report=report)
    if as_json:
        print_json(found)
        return
    shapes = found["shapes"]
    columns = [key for key in shapes[0] if key != "shape"]
    rows = [
        [str(tuple(entry["shape"])), *(f"{entry[key]:.3g}" for key in columns)] for entry in shapes
    ]
    print_table(["shape", *columns], rows)
    for key, value in found.items():
        if key != "shapes":
            print(f"{key}: {value}")


@bench.command(epilog="Example: adaptive-sleep bench training --json")
def training(as_json: Json = False) -> None:
    """Time a training step of the recipe hops beside the same step in plain torch.

    One thread, in CPU seconds, after checking that both find the same loss and gradients. Takes a
    minute.
    """
    from adaptive_sleep.experiments.bench_training import run_bench

    found = run_bench(report=note if sys.stderr.isatty() else None)
    if as_json:
        print_json(found)
        return
    rows = [["ours", f"{found['seconds']:.4f}", f"{found['tokens_per_second']:,.0f}", ""]]
    for form, each in found["plain"].items():
        ratio = f"{each['ratio']:.2f} ({each['ratio_low']:.2f} .. {each['ratio_high']:.2f})"
        speed = f"{each['tokens_per_second']:,.0f}"
        rows.append([f"plain, rule by {form}", f"{each['seconds']:.4f}", speed, ratio])
    print_table(["step", "CPU seconds", "tokens/s on one core", "times ours (10..90 %)"], rows)
    print(f"products: {found['products_share']:.0%} of our step")
    print(f"gate: {found['gate']}; {found['ratio']:.2f} times the faster of the plain steps")


@bench.command(epilog="Example: adaptive-sleep bench replay --json", name="replay")
def replay_(
    streams: Annotated[int, typer.Option(min=1, help="Streams side by side.")] = 64,
    events: Annotated[int, typer.Option(min=1, help="Events of each stream.")] = 6000,
    rounds: Annotated[int, typer.Option(min=1, help="Replays that are timed.")] = 3,
    as_json: Json = False,
) -> None:
    """Time replay of many streams of 16 channels from Parquet to trace, after checking the trace.

    The bundled series model under state_change, one thread; beside river's linear regression where
    river is installed (extra `bench`). Takes less than a minute.
    """
    from adaptive_sleep.experiments.bench_replay import run_bench

    report = note if sys.stderr.isatty() else None
    found = run_bench(streams=streams, events=events, rounds=rounds, report=report)
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        shown = f"{value:,.2f}" if isinstance(value, float) else value
        print(f"{key}: {'not installed' if value is None else shown}")


@bench.command(epilog="Example: adaptive-sleep bench runtime --json")
def runtime(
    rounds: Annotated[int, typer.Option(min=1, help="Windows of every stream to time.")] = 15,
    as_json: Json = False,
) -> None:
    """Time what deciding costs a step, and what a batch costs whose streams sleep differently long.

    One thread, in CPU seconds, after checking that batches and signals are right. Takes a few
    minutes.
    """
    from adaptive_sleep.experiments.bench_runtime import run_bench

    found = run_bench(rounds=rounds, report=note if sys.stderr.isatty() else None)
    if as_json:
        print_json(found)
        return
    sizes = ("streams", "window", "width")
    rows = [
        [
            *(str(each[name]) for name in sizes),
            each["policy"],
            f"{each['mean_passes']:.2f}",
            f"{each['share']:.2%} ({each['share_low']:.2%} .. {each['share_high']:.2%})",
            f"{each['signals_share']:.2%}",
            f"{each['policy_share']:.2%}",
        ]
        for each in found["deciding"]
    ]
    heads = ["policy", "mean passes", "share of a step (10..90 %)", "signals", "policy"]
    print_table([*sizes, *heads], rows)
    rows = [
        [
            *(str(each[name]) for name in sizes),
            f"{each['ratio']:.3f} ({each['ratio_low']:.3f} .. {each['ratio_high']:.3f})",
            f"{each['sleep_ratio']:.3f}",
        ]
        for each in found["mixed"]
    ]
    print_table([*sizes, "N of 1..4: times the ideal (10..90 %)", "of it, sleep"], rows)
    print(f"gate: {found['gate']}; of the first shape:")
    share, ratio = found["deciding_share"], found["mixed_ratio"]
    print(f"deciding {share:.2%} of a step at most (wanted: {found['deciding_bound']:.0%})")
    print(f"mixed {ratio:.3f} times the ideal (wanted: {found['mixed_bound']:.2f} at most)")


def add_to(parent: typer.Typer) -> None:
    """Add the commands to the application."""
    parent.command(epilog="Example: adaptive-sleep demo --out my-demo")(demo)
    parent.command(
        epilog="Example: adaptive-sleep train --recording R --preset series --out mine.safetensors"
    )(train)
    parent.command(epilog="Example: adaptive-sleep report run-a run-b --out report.html")(report)
    parent.add_typer(bench, name="bench")
