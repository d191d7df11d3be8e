import io

from rich.console import Console

from sparseguard.record import Flag
from sparseguard.record.claims import find_claim
from sparseguard.report import render
from support import synthetic_records as made

LONG = "sparse-standard first_layer_with_a_long_setting=0.25"


def shown(records, width=100):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for table in render(records):
        console.print(table)
    return console.file.getvalue()


def words(text):
    return " ".join(text.split())


def test_one_table_a_threat():
    assert len(render([made.record(threat=threat) for threat in ("split", "end-to-end")])) == 2


def test_everything_fits_in_100_columns():
    flags = [Flag(name="attacker-below-the-best-floor", message="m"), Flag(name="b", message="m", expected="e")]
    records = [
        made.record(LONG, seed=seed, flags=flags, claim=find_claim("split", "celeba", "none", None)) for seed in (0, 1)
    ]
    text = shown([*records, made.failed()], width=300)
    assert max(len(line.rstrip()) for line in text.splitlines() if "private/test" in line or "(12.00" in line) <= 100
    narrow = shown([*records, made.failed()])
    assert "…" not in narrow
    joined = words(narrow)
    for piece in (
        "20.00/19.00",
        "(12.00/11.00)",
        "(0.0005/0.0011)",
        "ridge-conv",
        "(black-box)",
        "(expected)",
        "(!)",
        "16.49",
    ):
        assert piece in joined


def test_caption_is_whole_and_says_which_direction_leaks():
    joined = words(shown([made.record(), made.failed("broken")]))
    assert "900 test images; 6 epochs at most; seed 0." in joined
    assert "Higher PSNR, SSIM and id@1 mean that more leaks." in joined
    assert "id@1 among N = 2,000 private images (chance 0.0005)" in joined
    assert "Failed: broken, seed 0: fit: TrainingError: the loss is not finite at epoch 3." in joined


def test_missing_test_part_is_named():
    joined = words(shown([made.record(attacks=made.attacks(parts={"private": 0.0}))]))
    assert "20.00/n/a" in joined
    assert "n/a: not available." in joined


def test_markup_in_a_name_is_shown_not_obeyed():
    assert "[red]x[/red]" in shown([made.record("[red]x[/red]")])
