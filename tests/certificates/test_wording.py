"""Figures are written so that nobody can misread them."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certificates import wording
from certificates.curve import fit_curve
from certificates.face import CertificateFace
from certificates.rosette import rosette
from tests.certificates.faces import EMPTY, FACE, HARD, LEVEL, equity_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.3456, "+12.35%"),
        (-99.99, "−99.99%"),
        (0.0, "0.00%"),
        (-0.0, "0.00%"),
        (0.001, "0.00%"),
        (-0.001, "0.00%"),
        (0.01, "+0.01%"),
        (100.0, "+100.00%"),
        (12_345.6, "+12,346%"),
        (1e9, "+1,000,000,000%"),
        (1.5e13, "+1.50 × 10^13%"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_a_return_has_its_sign_and_no_more_digits_than_matter(value: float | None, text: str):
    assert wording.signed_percent(value) == text


def test_what_is_undefined_is_a_dash_with_its_reason():
    facts = {fact.label: fact for fact in wording.figures(EMPTY)}

    assert facts["Win rate"].value == facts["Sharpe ratio"].value == "–"
    assert (facts["Profit factor"].value, facts["Profit factor"].note) == ("–", "no trade")
    no_loss = wording.figures(replace(FACE, profit_factor=None))
    assert [fact.note for fact in no_loss if fact.value == "–"] == ["no losing trade"]


def test_a_sharpe_ratio_of_few_days_is_marked():
    def note(face: CertificateFace) -> str:
        return wording.figures(face)[1].note

    assert note(FACE) == "low sample"
    assert note(replace(FACE, low_sample=False)) == ""
    assert note(EMPTY) == ""


def test_trials_are_counted_with_a_reason_to_care():
    assert "by chance alone" in wording.trials(FACE).note
    assert "not counted" in wording.trials(replace(FACE, trials=1)).note


def test_rules_are_told_as_they_were():
    told = {fact.label: fact.value for fact in wording.rules(FACE)}
    other = replace(
        FACE,
        blind=False,
        safety_mode=False,
        max_leverage=1.0,
        fill_timing="close",
        intrabar="optimistic",
        is_model_simulated=True,
        mode="monk",
    )

    differing = {f.label: f.value for f in wording.rules(other) if told[f.label] != f.value}

    assert differing == {
        "Orders fill": "at the close decided on",
        "Stop and target in one candle": "target first",
        "Leverage": "none",
        "Mode": "monk: prices alone, 1% risk, 4 h between entries",
        "Safety mode": "off",
        "Blind": "no",
        "Decided by": "a simulation of a model",
    }


def test_a_win_rate_in_percent_is_refused():
    with pytest.raises(ValueError, match="fraction"):
        replace(FACE, win_rate=58.3)


@pytest.mark.parametrize("face", [FACE, *HARD.values()], ids=["ordinary", *HARD])
def test_the_curve_lies_within_its_frame_with_the_start_of_it(face: CertificateFace):
    curve = fit_curve(face, width=300.0, height=100.0)

    assert len(curve.points) >= 2
    assert curve.points[0][0] == 0.0
    assert curve.points[-1][0] == pytest.approx(300.0)
    assert all(-1e-9 <= y <= 100 + 1e-9 for _, y in curve.points)
    assert 0 <= curve.start_y <= 100


@given(
    st.lists(st.floats(-1e300, 1e300) | st.just(math.nan) | st.just(math.inf), max_size=20),
    st.floats(min_value=100, max_value=1e6),
)
def test_no_equity_is_too_strange_to_be_drawn(values: list[float], capital: float):
    face = replace(FACE, equity=equity_of(values), starting_capital=capital)

    curve = fit_curve(face, width=300.0, height=100.0)

    assert all(math.isfinite(x) and math.isfinite(y) for x, y in curve.points)


def test_a_level_course_is_a_level_line():
    curve = fit_curve(LEVEL, width=300.0, height=100.0)

    assert {y for _, y in curve.points} == {curve.start_y}


def test_seals_of_two_certificates_differ_and_keep_to_their_circle():
    one, other = rosette(FACE.canonical_sha256), rosette("5" * 64)

    assert one != other
    for strand in (*one, *other):
        assert all(math.hypot(x, y) <= 1 + 1e-9 for x, y in strand)
        assert strand[0] == pytest.approx(strand[-1])


@pytest.mark.parametrize(
    ("data_source", "is_model_simulated", "said"),
    [
        ("simulated", True, "market and language model are both simulated"),
        ("simulated", False, "the market is simulated"),
        ("exchange:binance", True, "a simulation decided in place of a language model"),
    ],
)
def test_a_simulated_test_says_what_of_it_was_simulated(
    data_source: str, is_model_simulated: bool, said: str
):
    face = replace(
        FACE, seal="simulated", data_source=data_source, is_model_simulated=is_model_simulated
    )

    assert said in (wording.seal(face).note or "")
