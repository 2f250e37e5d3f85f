"""The words people type. Every command says its errors in one line and exits with 1."""

import json
import os
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from . import container, files, fleet, inspect, modelfile, steps
from .errors import HvcError, UsageError, need_onnx, need_torch, reason
from .files import Job
from .fleet import Made, Outcome

INPUTS = click.argument("inputs", nargs=-1, required=True)
OUTPUT = click.option("-o", "--output", help="File or folder; - is a pipe.")
MODEL = click.option("--model", help="A shipped model's name, or a model file.")
RAY = click.option(
    "--ray", is_flag=True, help="Spread the files by Ray over this machine or a cluster."
)
JOURNAL = click.option(
    "--journal",
    type=click.Path(dir_okay=False),
    help="File that notes what was made; what it shows to be made already is not made again.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Totals and failures, as JSON.")


class Group(click.Group):
    """Turns the errors a user can cause into one line each."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result
        except (HvcError, OSError, MemoryError, RuntimeError) as error:
            # click ends commands by exceptions of its own, and a closed pipe its own way.
            if isinstance(error, click.exceptions.Exit | click.Abort | BrokenPipeError):
                raise
            if (why := reason(error)) is None:
                raise
            click.echo(f"hvcodec: {why}", err=True)
            ctx.exit(1)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hvcodec")
def main() -> None:
    """A learned image codec: small files that can be cut at a layer boundary."""


def _run(
    jobs: Sequence[Job],
    work: fleet.Work,
    options: dict[str, object] | None = None,
    journal: str | None = None,
    ray: bool = False,
    as_json: bool = False,
) -> None:
    """Run a job per file with a progress bar; a failure is one line and stops no other file.

    Args:
        options, journal, ray: see `fleet.run`.
        as_json: end with totals on standard output, not in words.
    """
    if (ray or journal or as_json) and any(not job.source or not job.target for job in jobs):
        raise UsageError("with --ray, --journal or --json, files and no pipes are wanted")
    start = time.perf_counter()
    outcomes: list[Outcome] = []
    text = json.dumps(options, sort_keys=True)
    with _bar(len(jobs)) as (advance, say):
        for outcome in fleet.run(jobs, work, text, journal, ray):
            outcomes.append(outcome)
            say(outcome.said)
            advance()
    found = fleet.summary(outcomes, time.perf_counter() - start)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif len(jobs) > 1:
        click.echo(fleet.describe(found), err=True)
    if found["failed"]:
        raise click.exceptions.Exit(1)


@contextmanager
def _bar(total: int) -> Iterator[tuple[Callable[[], object], Callable[[str], None]]]:
    """A progress bar: how to advance it, and how to say something beside it."""
    if total == 1:  # no bar, and no time to import one
        yield lambda: None, lambda text: click.echo(text, err=True)
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="file", disable=None, file=sys.stderr) as bar:
        yield bar.update, lambda text: bar.write(text, file=sys.stderr)


def _rate_weights(text: str | None) -> str | dict[str, float] | None:
    """`NAME` or `z7=0.5,z1=inf`."""
    if text is None or "=" not in text:
        return text
    try:
        pairs = (part.split("=", 1) for part in text.split(","))
        return {name.strip(): float(beta) for name, beta in pairs}
    except ValueError:
        raise UsageError(f"rate weights are layer=beta,... or a preset, not {text!r}") from None


@main.command()
@INPUTS
@OUTPUT
@click.option("-q", "--quality", type=float, help="0..100, any float; default 50.")
@click.option("--lambda", "lam", type=float, help="Bits per pixel that a unit of MSE is worth.")
@click.option("--target-bpp", type=float, help="At most this many bits per pixel.")
@click.option("--target-size", type=int, help="At most this many bytes.")
@click.option("--target-psnr", type=float, help="About this PSNR in dB, from below.")
@click.option(
    "--rate-weights",
    metavar="NAME|LAYER=BETA,...",
    help=f"Price of a bit per layer (0.125..8, or inf), or a preset: {', '.join(steps.PRESETS)}.",
)
@click.option("--effort", type=int, default=0, help="0..9: search for a better file, the longer.")
@click.option("--tune", help="psnr (default), or ms-ssim: for eyes rather than for squared errors.")
@click.option("--strip", is_flag=True, help="Leave out ICC, EXIF and XMP.")
@click.option("--lossless", is_flag=True, help="End the file in the exact pixels; -q is of the rest.")
@MODEL
@RAY
@JOURNAL
@JSON
def encode(
    inputs: tuple[str, ...],
    output: str | None,
    rate_weights: str | None,
    ray: bool,
    journal: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Encode pictures, or all pictures of folders, as .hvc files; - is a pipe."""
    options["rate_weights"] = _rate_weights(rate_weights)
    steps.betas(options["rate_weights"])
    options = {name: value for name, value in options.items() if value is not None}
    jobs = files.plan(inputs, output, files.PICTURES, ".hvc")
    whole = _whole(options, journal, modelfile.DEFAULT_NAME)
    _run(jobs, partial(_encode, options), whole, journal, ray, as_json)


def _encode(options: dict[str, Any], job: Job, content: bytes) -> Made:
    from . import encoder, picture  # of no use if there is nothing to read

    image = picture.open_picture(content)
    with _search_bar(options) as progress:
        data = encoder.encode(image, progress=progress, **options)
    pixels = image.width * image.height
    bpp = 8 * len(data) / pixels
    return Made(f"{len(data)} bytes, {bpp:.3f} bpp", pixels, len(data), job.target, data)


def _whole(
    options: dict[str, Any], journal: str | None, usual_model: str | None = None
) -> dict[str, object]:
    """Options as a journal keeps them: a model by its content, whatever its name."""
    model = options.get("model") or usual_model
    if journal and model:
        return options | {"model": modelfile.id_of(modelfile.locate(model))}
    return options


@contextmanager
def _search_bar(options: dict[str, object]) -> Iterator[Callable[[float], None]]:
    """A progress bar for the search of one file, on a terminal and if there is a search."""
    if not options["effort"]:
        yield lambda share: None
        return
    from tqdm import tqdm

    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, desc="search", bar_format=form, leave=False, disable=None) as bar:

        def show(share: float) -> None:
            bar.update(share - bar.n)

        yield show


@main.command()
@INPUTS
@OUTPUT
@click.option("--layers", type=int, help="Use only this many layers, coarse first.")
@click.option("--region", metavar="X,Y,WIDTH,HEIGHT", help="Only this part of the picture, in pixels.")
@click.option("--reduce", type=int, default=1, help="8, 16, 32 or 64: so many times smaller, and fast.")
@click.option("--partial", is_flag=True, help="Take a file that ends anywhere; use its whole layers.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=container.DEFAULT_MAX_PIXELS,
    show_default=True,
    help="Refuse larger pictures.",
)
@MODEL
@RAY
@JOURNAL
@JSON
def decode(
    inputs: tuple[str, ...],
    output: str | None,
    region: str | None,
    ray: bool,
    journal: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Decode .hvc files, or all of folders; - is a pipe.

    The picture is a PNG unless -o names a .webp, .tiff, .jpg or .bmp (which holds no metadata). Where
    its name follows from the file's, it is NAME.png, or NAME.decoded.png if another NAME.png is there
    already, so that no original is overwritten.
    """
    options["region"] = _region(region)
    jobs = files.plan(inputs, output, {".hvc"}, ".png")
    _run(jobs, partial(_decode, options), _whole(options, journal), journal, ray, as_json)


def _decode(options: dict[str, Any], job: Job, content: bytes) -> Made:
    found = container.read(content, options["max_pixels"], options["partial"])
    from . import decoder, picture

    image = decoder.decode(content, **options)
    target = job.target
    data = picture.save(image, target.suffix if target else ".png")
    # What is there may be an original, or this very result, of a run that was interrupted.
    if target and not job.named and files.exists(target) and files.read(target) != data:
        target = target.with_suffix(".decoded.png")
    said = (
        f"{image.width}x{image.height}, "
        f"{options['layers'] or found.layers} of {len(found.cut_points)} layers"
    )
    return Made(said, image.width * image.height, len(content), target, data)


def _region(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"a region is x,y,width,height in pixels, not {text!r}") from None
    return x, y, width, height


@main.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def info(file: str, as_json: bool) -> None:
    """Size, model, layers and cut points of a .hvc file."""

    def work(job: Job) -> str:
        found = inspect.info(files.read(job.source))
        return json.dumps(found, indent=2) if as_json else inspect.describe(found)

    click.echo(_one(file, work))


@main.command()
@INPUTS
def verify(inputs: tuple[str, ...]) -> None:
    """Check that .hvc files, or all of folders, are whole and undamaged, without decoding them."""
    _run([Job(path, None) for path, _ in files.find(inputs, {".hvc"})], _verify)


def _verify(job: Job, content: bytes) -> Made:
    found = container.read(content)
    found.verify()
    header = found.header
    said = f"{found.layers} of {len(found.cut_points)} layers, sound"
    return Made(said, header.width * header.height, len(content))


@main.command()
@click.argument("file")
@click.option("-o", "--output", required=True, help="File or folder; - is a pipe.")
@click.option("--layers", type=int, help="Keep this many layers, coarse first.")
@click.option("--max-bytes", type=int, help="Keep as many layers as fit.")
def cut(file: str, output: str, layers: int | None, max_bytes: int | None) -> None:
    """Make a smaller, coarser file by leaving finer layers out; nothing is decoded."""

    def work(job: Job) -> str:
        data = inspect.cut(files.read(job.source), layers, max_bytes)
        files.write(job.target, data)
        return f"{files.label(job.target)}: {len(data)} bytes"

    click.echo(_one(file, work, output), err=True)


def _one(file: str, work: Callable[[Job], str], output: str | None = None) -> str:
    """Run a job on one file; its error names the file."""
    jobs = files.plan([file], output, {".hvc"}, ".hvc") if output else [_source(file)]
    if len(jobs) > 1:
        raise UsageError(f"{file} holds {len(jobs)} files, and one is wanted")
    job = jobs[0]
    try:
        return work(job)
    except HvcError as error:
        raise type(error)(f"{files.label(job.source)}: {error}") from None


def _source(file: str) -> Job:
    return Job(None if file == files.PIPE else files.path(file), None)


@main.command()
@click.argument("file")
def view(file: str) -> None:
    """Show a .hvc file in the browser, layer by layer, until Ctrl-C."""

    def work(job: Job) -> str:
        data = files.read(job.source)
        container.read(data, partial=True)
        from . import view as viewing

        server, address = viewing.server(job.source.name if job.source else "stdin.hvc", data)
        with server:
            click.echo(f"{address}  (Ctrl-C ends it)", err=True)
            webbrowser.open(address)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                pass
        return ""

    _one(file, work)


@main.command()
def models() -> None:
    """List the shipped models; the first is the default."""
    for model_id, path in modelfile.shipped().items():
        training = modelfile.card(path)["training"]
        click.echo(
            f"{modelfile.name_of(model_id)}  {model_id}  {path.stat().st_size / 1e6:.1f} MB  "
            f"{training['pixels'] / 1e9:.2f} Gpx seen, {training['date']}"
        )


@main.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--run",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the checkpoint and log; a run that is there goes on.",
)
@click.option("--pixels", type=float, default=4e9, show_default=True, help="Pixels to see in all.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--config", default="{}", help="JSON of sizes that differ from the default network.")
@click.option("--recipe", default="{}", help="JSON of what differs from the default recipe.")
@click.option("--init", type=click.Path(exists=True, path_type=Path), help="Model file to start from.")
@click.option(
    "--lossless",
    type=click.Path(exists=True, path_type=Path),
    help="Train a lossless layer instead, for this model file.",
)
def train(
    pictures: Path,
    run: Path,
    pixels: float,
    seed: int,
    config: str,
    recipe: str,
    init: Path | None,
    lossless: Path | None,
) -> None:
    """Train a model on a folder of pictures (resumes by itself); `export` makes it a model file."""
    # Threads that wait a little before they sleep: with PyTorch's small operations that is worth a
    # third of the speed, and costs other programs little. Must be set before PyTorch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    need_torch("training")
    from . import lossless_model, lossless_train, processes, trainer
    from . import train as training
    from .model import Config

    if init and lossless:
        raise UsageError("a lossless layer starts from nothing: give no --init")
    usual = {} if lossless is None else asdict(lossless_train.RECIPE)
    try:
        chosen = json.loads(config)
        plan = trainer.Recipe(**usual | {"pixels": pixels, "seed": seed} | json.loads(recipe))
        if lossless is None:
            sizes = Config.from_dict(chosen)
        else:
            layer = lossless_model.Config.from_dict(chosen)
    except (TypeError, ValueError) as error:
        raise UsageError(f"wrong config or recipe: {error}") from None
    with processes.joined():
        if lossless is None:
            click.echo(training.train(pictures, run, plan, sizes, init))
        else:
            click.echo(lossless_train.train(pictures, run, plan, layer, lossless))


@main.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--lossless",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Run of a lossless layer that goes into the file too.",
)
def export(run: Path, target: Path, lossless: Path | None) -> None:
    """Turn a training run's checkpoint into a model file for `encode --model`."""
    need_torch("exporting a model")
    from . import export as exporting

    layer = lossless / "checkpoint.pt" if lossless else None
    click.echo(exporting.export(run / "checkpoint.pt", target, layer))


@main.command("export-onnx")
@click.argument("model")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export_onnx(model: str, folder: Path) -> None:
    """Write the decoder of MODEL, a name or a file, as ONNX graphs (docs/onnx.md)."""
    need_onnx()
    from . import onnx_export

    click.echo(onnx_export.export(modelfile.locate(model), folder))
