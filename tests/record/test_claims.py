import csv
import importlib.resources

import pytest

from sparseguard.record.claims import find_claim

LINES = list(csv.DictReader((importlib.resources.files("sparseguard.record") / "claims.csv").read_text().splitlines()))


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line['attack']}-{line['dataset']}-{line['defense']}")
def test_every_line_of_the_tables_is_found(line):
    name, _, lambd = line["defense"].partition("sca-")
    claim = find_claim(line["attack"], line["dataset"], "sca" if lambd else name, float(lambd) if lambd else None)
    assert claim is not None
    assert claim.source == f"Table {line['table']}"
    found = (claim.psnr, claim.ssim, claim.fid, claim.accuracy)
    assert found == tuple(float(line[key]) for key in ("psnr_db", "ssim", "fid", "accuracy"))


def test_the_tables_have_78_lines():
    assert len(LINES) == 78


@pytest.mark.parametrize("dataset", ["Medical MNIST", "medical-mnist", "medical_mnist", "MedicalMNIST"])
def test_spelling_of_the_dataset_does_not_matter(dataset):
    claim = find_claim("end-to-end", dataset, "sparse-standard", 0.5)
    assert claim is not None
    assert (claim.source, claim.psnr, claim.accuracy) == ("Table 2", 14.79, 0.907)


@pytest.mark.parametrize(
    ("attack", "dataset", "defense", "lambd"),
    [
        ("split", None, "none", None),
        ("split", "fashion-mini", "none", None),
        ("split", "celeba", "width-control", None),
        ("split", "celeba", "sca", 0.3),
        ("split", "celeba", "sca", None),
        ("other", "celeba", "none", None),
    ],
)
def test_what_the_paper_does_not_say_is_none(attack, dataset, defense, lambd):
    assert find_claim(attack, dataset, defense, lambd) is None
