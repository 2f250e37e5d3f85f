"""The words people type. Every command says its errors in one line and exits with 1."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from . import container, files, inspect, modelfile
from .errors import HvcError, UsageError
from .steps import PRESETS

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}
INPUTS = click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), help="File or folder.")
MODEL = click.option("--model", help="A shipped model's name, or a model file.")


class Group(click.Group):
    """Turns the errors a user can cause into one line each."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except HvcError as error:
            click.echo(f"hvcodec: {error}", err=True)
            ctx.exit(1)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hvcodec")
def main() -> None:
    """A learned image codec: small files that can be cut at a layer boundary."""


def _for_each(jobs: Iterable[files.Job], work: Callable[[files.Job], str]) -> None:
    """Run a job per file with a progress bar; a failure is one line and does not stop the others."""
    from tqdm import tqdm

    jobs = list(jobs)
    failed = 0
    with tqdm(jobs, unit="file", disable=len(jobs) == 1 or None, file=sys.stderr) as bar:
        for job in bar:
            try:
                said = work(job)
            except (HvcError, MemoryError) as error:
                failed += 1
                said = f"hvcodec: {job.source}: {error or 'out of memory'}"
            bar.write(said, file=sys.stderr)
    if failed:
        raise click.exceptions.Exit(1)


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
    help=f"Price of a bit per layer (0.125..8, or inf), or a preset: {', '.join(PRESETS)}.",
)
@click.option("--strip", is_flag=True, help="Leave out ICC, EXIF and XMP.")
@MODEL
def encode(inputs: tuple[Path, ...], output: Path | None, **options: object) -> None:
    """Encode pictures, or all pictures of folders, as .hvc files; - is a pipe."""
    from . import codec, picture

    weights = _rate_weights(options.pop("rate_weights"))  # type: ignore[arg-type]

    def work(job: files.Job) -> str:
        image = picture.open_picture(files.read(job.source))
        data = codec.encode(image, rate_weights=weights, **options)  # type: ignore[arg-type]
        files.write(job.target, data)
        bpp = 8 * len(data) / (image.width * image.height)
        return f"{job.target}: {len(data)} bytes, {bpp:.3f} bpp"

    _for_each(files.plan(inputs, output, PICTURE_SUFFIXES, ".hvc"), work)


@main.command()
@INPUTS
@OUTPUT
@click.option("--layers", type=int, help="Use only this many layers, coarse first.")
@MODEL
def decode(
    inputs: tuple[Path, ...], output: Path | None, layers: int | None, model: str | None
) -> None:
    """Decode .hvc files, or all of folders; - is a pipe.

    The picture is a PNG unless -o says otherwise (.png, .webp, .tiff, .bmp, .jpg). Beside its file it
    is NAME.png, or NAME.decoded.png where NAME.png is there already: no original is overwritten.
    """
    from . import codec, picture

    def work(job: files.Job) -> str:
        data = files.read(job.source)
        image = codec.decode(data, layers, model)
        target = job.target
        if output is None and target != files.PIPE and target.exists():
            target = target.with_suffix(".decoded.png")
        suffix = ".png" if target == files.PIPE else target.suffix
        files.write(target, picture.save(image, suffix))
        found = container.read(data)
        return (
            f"{target}: {image.width}x{image.height}, "
            f"{layers or found.layers} of {len(found.header.steps)} layers"
        )

    _for_each(files.plan(inputs, output, {".hvc"}, ".png"), work)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def info(file: Path, as_json: bool) -> None:
    """Size, model, layers and cut points of a .hvc file."""
    found = inspect.info(files.read(file))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    present = sum(layer["present"] for layer in found["layers"])
    model = found["model_name"] or "not shipped"
    click.echo(f"{found['width']}x{found['height']}, {found['bytes']} bytes, {found['bpp']:.4f} bpp")
    click.echo(f"model {found['model']} ({model}), format {found['format_version']}")
    for kind, size in found["metadata"].items():
        click.echo(f"{kind}: {size} bytes")
    click.echo(f"{present} of {len(found['layers'])} layers")
    click.echo("layer  stride    step    bytes   cut at")
    for layer, point in zip(found["layers"], found["cut_points"]):
        step = "off" if layer["step"] is None else f"{layer['step']:.2f}"
        gone = "" if layer["present"] else "  (cut away)"
        click.echo(
            f"{layer['name']:>5} {layer['stride']:>7} {step:>7} {layer['length']:>8} {point:>8}{gone}"
        )


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
def verify(inputs: tuple[Path, ...]) -> None:
    """Check that .hvc files are whole and undamaged, without decoding them."""

    def work(job: files.Job) -> str:
        found = container.read(files.read(job.source))
        found.verify()
        return f"{job.source}: {found.layers} of {len(found.header.steps)} layers, sound"

    _for_each((files.Job(path, path) for path in inputs), work)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--layers", type=int, help="Keep this many layers, coarse first.")
@click.option("--max-bytes", type=int, help="Keep as many layers as fit.")
def cut(file: Path, output: Path, layers: int | None, max_bytes: int | None) -> None:
    """Make a smaller, coarser file by leaving finer layers out; nothing is decoded."""
    files.write(output, inspect.cut(files.read(file), layers, max_bytes))


@main.command()
def models() -> None:
    """List the shipped models."""
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
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--config", default="{}", help="JSON of sizes that differ from the default network.")
@click.option("--init", type=click.Path(exists=True, path_type=Path), help="Model file to start from.")
def train(pictures: Path, run: Path, pixels: float, seed: int, config: str, init: Path | None) -> None:
    """Train a model on a folder of pictures (resumes by itself); `export` makes it a model file."""
    # Threads that wait a little before they sleep: with PyTorch's small operations that is worth a
    # third of the speed, and costs other programs little. Must be set before PyTorch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    from . import train as training
    from .model import Config

    try:
        sizes = Config(**json.loads(config))
    except (TypeError, ValueError) as error:
        raise UsageError(f"--config: {error}") from None
    recipe = training.Recipe(pixels=pixels, seed=seed)
    click.echo(training.train(pictures, run, recipe, sizes, init))


@main.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def export(run: Path, target: Path) -> None:
    """Turn a training run's checkpoint into a model file for `encode --model`."""
    from . import export as exporting

    click.echo(exporting.export(run / "checkpoint.pt", target))
