"""Learn a dictionary on real images, encode other images with it, and draw both.

python examples/sparse_coding.py --out runs/sparse-coding
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from rich.progress import track
from torch import Tensor

from sparseguard import DATASETS
from sparseguard.sparse import Solution, SparseCode2d, learn_dictionary


def sheet(tiles: Tensor, columns: int, zoom: int) -> Tensor:
    """Place tiles ``(n, 1, h, w)`` in rows on white, enlarged pixel by pixel; 0 is grey, -1 black, 1 white."""
    shades = (tiles[:, 0].clamp(-1, 1) + 1) / 2
    framed = F.pad(shades.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2), (2, 2, 2, 2), value=1.0)
    return torch.cat([torch.cat(list(row), dim=1) for row in framed.split(columns)])


def save(path: Path, **sheets: Tensor) -> None:
    """Write sheets beside one another, each below its name."""
    picture = torch.cat([F.pad(drawn, (8, 8, 24, 8), value=1.0) for drawn in sheets.values()], dim=1)
    image = Image.fromarray((picture * 255).round().byte().numpy())
    for number, name in enumerate(sheets):
        ImageDraw.Draw(image).text((10 + number * image.width // len(sheets), 6), name, fill=0, font_size=14)
    image.save(path, optimize=True)
    print(f"wrote {path}")


def describe(solution: Solution) -> str:
    """Describe accuracy and sparsity of the codes; the images have variance 1."""
    decibels, active = -10 * solution.residual.square().flatten(1).mean(1).log10(), (solution.code > 0).float().mean()
    return f"energy {solution.energy.mean():.1f}, image to residual {decibels.mean():.1f} dB, {active:.1%} active"


parser = argparse.ArgumentParser(description="Learn a dictionary and draw it.")
parser.add_argument("--out", type=Path, default=Path("runs/sparse-coding"), help="folder for the pictures")
out: Path = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)

data, generator = DATASETS["fashion-mini"](auxiliary=600).load(), torch.Generator().manual_seed(0)
images = data.auxiliary_val.images[:8]
layer = SparseCode2d(1, 32, kernel_size=7, stride=2, lambd=0.5, steps=30, generator=generator)
random = layer.dictionary.clone()
print(f"random atoms:  {describe(layer.solution(images))}")
for epoch in learn_dictionary(layer, data.auxiliary.images, generator=generator, track=track):
    print(f"energy {epoch.energy:6.1f}, {epoch.active:.1%} active, {epoch.dead} dead atoms")
solution, atoms = layer.solution(images), layer.dictionary.detach()
print(f"learned atoms: {describe(solution)}")
shades = [part / part.abs().amax((1, 2, 3), keepdim=True) for part in (random, atoms)]
save(out / "atoms.png", random=sheet(shades[0], 8, 7), learned=sheet(shades[1], 8, 7))
parts = {"image": solution.problem.images, "reconstruction": solution.reconstruction, "residual": solution.residual}
save(out / "images.png", **{name: sheet(part / 2.5, 4, 3) for name, part in parts.items()})
