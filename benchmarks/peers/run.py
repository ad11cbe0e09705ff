"""scikit-learn's own tests on the estimators of localgd: every failure is on a reviewed list, with its reason.

    OMP_NUM_THREADS=1 python benchmarks/peers/run.py [SUITE…] [--show]

The tests are those of the installed scikit-learn, copied into a folder that is gone afterwards; `adapters.py`
translates parameters. `reviewed/SUITE.txt` has the failures: after each reason, in brackets, the tests that fail for
it; a test without its parameters means all of them. Exit code 1 if one fails that is not on the list, or one passes
that is. A test that fits none of the adapters is counted apart: it says nothing of localgd. `--show` prints errors.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import sklearn

HERE = Path(__file__).parent
SUITES = {
    "logistic": "linear_model/tests/test_logistic.py",
    "ridge": "linear_model/tests/test_ridge.py",
    "svm": "svm/tests/test_svm.py",
    "multiclass": "tests/test_multiclass.py",
}


def outcomes(suite: str) -> dict[str, dict[str, Any]]:
    """Return what became of every test of a suite, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(Path(sklearn.__file__).parent / SUITES[suite], folder))
        kept = Path(folder) / "outcomes.json"
        paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "PEERS_OUTCOMES": str(kept), "PYTHONDONTWRITEBYTECODE": "1"}
        plugins = ["-p", "sklearn.conftest", "-p", "plugin", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--rootdir", folder, *plugins, str(copy)]
        done = subprocess.run(command, env=os.environ | own, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        if not kept.exists():
            raise SystemExit(f"{suite}: pytest left no outcomes\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return json.loads(kept.read_text(encoding="utf-8"))


def reviewed(suite: str) -> dict[str, str]:
    """Return the reason of every test on the list."""
    reason, listed = "", {}
    for line in (HERE / "reviewed" / f"{suite}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            reason = line.strip("[] ")
        elif line and not line.startswith("#"):
            if line in listed or not reason:
                raise SystemExit(f"{suite}: {line} is listed twice, or without a reason")
            listed[line] = reason
    return listed


def judged(suite: str, *, show: bool) -> bool:
    """Run a suite, print its counts and what is not as reviewed; return whether all is."""
    found, listed = outcomes(suite), reviewed(suite)
    reasons: dict[str, str] = {}
    for test in found:
        names = [name for name in (test, test.partition("[")[0]) if name in listed]
        if names:
            reasons[test] = listed[names[0]]
    about = {test: one for test, one in found.items() if one["touched"]}
    failed = {test for test, one in found.items() if one["outcome"] == "failed"}
    passed = {test for test, one in found.items() if one["outcome"] == "passed"}
    unexpected, mended = sorted(failed - reasons.keys()), sorted(passed & reasons.keys())
    gone = sorted(name for name in listed if not any(name in (test, test.partition("[")[0]) for test in found))
    print(
        f"{suite}: {len(passed & about.keys())} passed, {len(failed & reasons.keys())} failed with a reason, "
        f"{len(unexpected)} unexpected; apart from those {len(passed - about.keys())} passed without localgd, "
        f"{len(found) - len(passed) - len(failed)} were skipped"
    )
    for reason in dict.fromkeys(listed.values()):
        print(f"    {sum(reasons[test] == reason for test in failed & reasons.keys()):4d}  {reason}")
    for test in unexpected:
        print(f"  fails, and is not on the list: {test}: {found[test]['error']}")
    for test in mended:
        print(f"  passes, and is on the list: {test}")
    for name in gone:
        print(f"  is on the list, and no test: {name}")
    for test in sorted(failed & reasons.keys()) if show else ():
        print(f"  {test}: {found[test]['error']}")
    return not (unexpected or mended or gone)


def main() -> int:
    """Run the suites that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; default all")
    parser.add_argument("--show", action="store_true", help="print the error of every failure")
    asked = parser.parse_args()
    if strange := set(asked.suites) - SUITES.keys():
        parser.error(f"no suite {', '.join(sorted(strange))}; there is {', '.join(SUITES)}")
    print(f"scikit-learn {sklearn.__version__}")
    as_reviewed = [judged(suite, show=asked.show) for suite in asked.suites or SUITES]
    return 0 if all(as_reviewed) else 1


if __name__ == "__main__":
    sys.exit(main())
