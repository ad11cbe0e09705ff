"""Dates as numbers, on request; and lines and header cells of CSV files that hold nothing but blanks."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from command import localgd
from localgd import from_arrays, load, prepare
from localgd.data.values import as_days
from localgd.engine.inprocess import InProcess

WRITTEN = ["1970-01-02", "2020-02-29T12:00", "2020-02-29 06:30:15.5", "", "1969-12-31"]
DOTTED = [" 2.1.1970", "29.02.2020 12:00", "29.2.2020T06:30:15.5", "-", "31.12.1969"]
DAYS = [1.0, 18321.5, 18321 + (6 * 3600 + 30 * 60 + 15.5) / 86400, None, -1.0]


def test_dates_are_days_since_1970_however_they_are_stored():
    assert as_days(pl.Series("d", WRITTEN), str).to_list() == DAYS
    assert as_days(pl.Series("d", DOTTED), str).to_list() == DAYS
    assert as_days(pl.Series("d", [*DOTTED[:2], *WRITTEN[2:]]), str).to_list() == DAYS
    assert as_days(pl.Series("d", [date(2020, 2, 29), None]), str).to_list() == [18321.0, None]
    assert as_days(pl.Series("d", [datetime(2020, 2, 29, 12)]), str).to_list() == [18321.5]  # noqa: DTZ001  of no zone


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_stored_times_are_those_that_are_read_whatever_their_unit_and_zone(unit, tmp_path):
    local = pl.Series("d", ["2020-02-29T12:00"]).str.to_datetime(time_unit=unit)
    assert as_days(local, str).to_list() == [18321.5]
    assert as_days(local.dt.replace_time_zone("Asia/Tokyo"), str).to_list() == [18321.5]
    pl.DataFrame({"d": local, "y": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"days since 1970 with dates=\['d'\] \(--dates d\)"):
        load(tmp_path / "a.parquet", label="y")


DAY_OR_MONTH = "as nobody can tell here whether day or month stands first"
DAY_OR_YEAR = "as nobody can tell here where day, month and a year of two digits stand"
ODD = ["2021-02-29", "2020-02-29 24:00", "2020-2-9", "soon", "20200229", "29.02.2021", "02.29.2020", "1.1.2020 24:00"]
ODD = dict.fromkeys([*ODD, "1.1.20200", "001.1.2020", "1.1. 2020", "2020.01.01", "2020/01/01"], "HH:MM:SS; correct it")
ODD |= dict.fromkeys(["29/02/2020", "1/2/2020 12:00", "01-02-2020"], DAY_OR_MONTH)
ODD |= dict.fromkeys(["29.02.20", "1/2/20", "01-02-20 12:00"], DAY_OR_YEAR)


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_date_or_written_in_another_way_is_refused_by_row(odd):
    said = r"row 1: column 'd' holds .*, no date; write it YYYY-MM-DD or DD\.MM\.YYYY, with or without a time HH:MM:SS"
    with pytest.raises(ValueError, match=said) as refused:
        as_days(pl.Series("d", ["2020-02-29", odd]), lambda row: f"row {row}")
    assert ODD[odd] in str(refused.value)


@pytest.fixture
def visits(tmp_path):
    rng = np.random.default_rng(0)
    days, site = rng.integers(18000, 19000, 60), np.arange(60) % 2
    written = [str(date.fromordinal(int(day) + date(1970, 1, 1).toordinal())) for day in days]
    frame = pl.DataFrame({"seen": written, "site": site, "ill": np.where(days > 18500, "yes", "no")})
    frame.write_csv(tmp_path / "visits.csv")
    frame.with_columns(pl.col("seen").str.to_date()).write_parquet(tmp_path / "visits.parquet")
    return tmp_path


def test_dates_on_request_are_numbers_wherever_the_model_goes(visits):
    """From text to numbers, to a model, to files of both kinds that it predicts on."""
    where = ("--label", "ill", "--node", "site")
    asked = localgd("train", visits / "visits.csv", *where)
    assert asked.returncode == 2
    assert "--dates" in asked.stderr
    done = localgd("train", visits / "visits.csv", *where, "--dates", "seen", "--C", "1", "--out", visits / "RUN")
    assert done.returncode == 0, done.stderr
    exported = localgd("export", visits / "RUN", "--to", "sklearn", "--out", visits / "m.joblib")
    assert exported.stderr == "dates ('seen') are numbers there, days since 1970: convert them first\n"
    first = localgd("predict", visits / "RUN", visits / "visits.csv").stdout
    assert first == localgd("predict", visits / "RUN", visits / "visits.parquet").stdout
    assert set(first.split()[1:]) == {"no", "yes"}
    assert localgd("evaluate", visits / "RUN", visits / "visits.parquet", *where).returncode == 0
    rows = pl.read_csv(visits / "visits.csv").with_columns(pl.col("seen").str.to_date().dt.strftime("%d.%m.%Y"))
    rows.write_csv(visits / "dotted.csv")
    assert first == localgd("predict", visits / "RUN", visits / "dotted.csv").stdout
    rows.write_csv(visits / "semicolons.csv", separator=";")  # as where numbers have commas
    assert first == localgd("predict", visits / "RUN", visits / "semicolons.csv", "--decimal", ",").stdout
    again = localgd("train", visits / "dotted.csv", *where, "--dates", "seen", "--C", "1", "--out", visits / "DOTTED")
    assert again.returncode == 0, again.stderr
    assert (visits / "DOTTED" / "coefficients.csv").read_text() == (visits / "RUN" / "coefficients.csv").read_text()
    (visits / "odd.csv").write_text("seen\n01/02/2020\n")
    refused = localgd("predict", visits / "RUN", visits / "odd.csv")
    assert refused.returncode == 2
    assert "row 2: column 'seen' holds '01/02/2020', no date" in refused.stderr


def test_dates_of_frames_in_memory_are_those_of_files(visits):
    frame = pl.read_parquet(visits / "visits.parquet")
    tables = from_arrays(frame.select("seen"), frame["ill"], frame["site"], dates=["seen"])
    _, recipe = prepare(InProcess(tables), scale="standard")
    of_file = load(visits / "visits.csv", label="ill", node="site", dates=["seen"])
    assert prepare(InProcess(of_file), scale="standard")[1].columns == recipe.columns
    assert recipe.columns[0].dates
    assert type(recipe).from_dict(recipe.to_dict()) == recipe


def test_what_cannot_be_dates_is_refused(visits):
    with pytest.raises(ValueError, match=r"dates='soon' is not a column"):
        load(visits / "visits.csv", label="ill", dates=["soon"])
    with pytest.raises(ValueError, match=r"column 'seen' is said to be a date .* and a category"):
        load(visits / "visits.csv", label="ill", dates=["seen"], categorical=["seen"])


def test_blank_lines_are_no_rows_and_that_is_said(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,0\n\n2,1\n,\n3,1\n\n")
    (table,) = load(tmp_path / "a.csv", label="y")
    assert table.features["x"].to_list() == [1, 2, 3]
    assert table.row_numbers.tolist() == [2, 4, 6]
    assert table.notes == ("blank lines are left out, as they are no rows",)


def test_outer_blanks_are_no_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_text(" x , y\n1,0\n2,1\n")
    assert load(tmp_path / "a.csv", label="y")[0].names == ("x",)
    (tmp_path / "b.csv").write_text("x,x ,y\n1,1,0\n2,2,1\n")
    with pytest.raises(ValueError, match="two columns are called 'x'"):
        load(tmp_path / "b.csv", label="y")


def test_utf_16_is_seen_and_named(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,0\n2,1\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"is UTF-16; say so with encoding='utf-16'"):
        load(tmp_path / "a.csv", label="y")
    assert load(tmp_path / "a.csv", label="y", encoding="utf-16")[0].n_rows == 2


@pytest.mark.parametrize("odd", ["9999-12-31", "1900-01-01", "2999-01-01"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "datetime"])
def test_a_date_that_stands_for_none_is_said_and_can_be_taken_away(tmp_path, odd, kind):
    seen = ["2023-05-01", odd, "2022-01-31", "2024-02-29"]
    frame = pl.DataFrame({"seen": seen, "y": [0, 1, 0, 1]})
    if kind == "csv":
        frame.write_csv(tmp_path / "a.csv")
    else:
        dates = pl.col("seen").str.to_date()
        frame.with_columns(dates.cast(pl.Datetime) if kind == "datetime" else dates).write_parquet(
            tmp_path / "a.parquet"
        )
    (table,) = load(tmp_path, label="y", dates=["seen"])
    said = f"column 'seen' holds '{odd}', which seldom is a date: if it stands for a missing value, say so with"
    assert table.notes == (f"{said} missing_values=['{odd}'] (--missing-values {odd})",)
    assert table.features["seen"].null_count() == 0
    (table,) = load(tmp_path, label="y", dates=["seen"], missing_values=[odd])
    assert table.notes == ()
    assert table.features["seen"].is_null().to_list() == [False, True, False, False]
    assert table.met == (("", odd),)


def test_of_any_other_date_nothing_is_said_as_that_would_be_a_value_of_a_row(tmp_path):
    seen = ["2203-05-01", "1900-01-02", "9999-12-31 13:37"]
    pl.DataFrame({"seen": seen, "y": [0, 1, 0]}).write_csv(tmp_path / "a.csv")
    assert load(tmp_path, label="y", dates=["seen"])[0].notes == ()
