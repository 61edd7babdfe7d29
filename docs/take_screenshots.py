"""`make screenshots`: runs the demo's phantoms through the whole system and takes the README's pictures in Chromium."""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from local_stack import HOST, MODELS_FOLDER, LocalStack
from signed_in_reader import add_reader
from triage.ledger import Ledger
from triage.ledger.studies import Studies
from triage.settings import load_settings
from triage.study import FINAL_STATES

HERE = Path(__file__).resolve().parent
CHROMIUM = "/usr/bin/chromium"
# Chromium asks its maker's hosts for this and that at each start; a closed network answers none of it.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main(models: Path = MODELS_FOLDER) -> None:
    """Take docs/list.png and docs/study.png."""
    with tempfile.TemporaryDirectory(prefix="ich-triage-pictures-") as folder:
        phantoms = Path(folder) / "phantoms"
        _command("phantoms", str(phantoms), "--count", "7", "--bleeds", "3", "--smallest-ml", "15", "--seed", "21")
        scout = sorted((phantoms / "phantom_0001").iterdir())[:6]  # a study of six slices: not analysed
        with LocalStack(Path(folder) / "storage", models_folder=models) as stack:
            stack.wait_ready("serve")
            port = str(stack.wait_ready("listen")["dicom_port"])
            folders = sorted(path for path in phantoms.iterdir() if path.is_dir())
            _command("send", *map(str, scout), "--port", port)
            for each in folders[1:]:
                _command("send", str(each), "--port", port)
            _wait_for_results(stack, len(folders))
            password = secrets.token_urlsafe(12)
            add_reader(stack, "reader", password)
            _take(f"http://{HOST}:{stack.wait_ready('worklist')['worklist_port']}", password)


def _take(address: str, password: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1360, "height": 620})
        page.goto(f"{address}/sign-in")
        page.fill("input[name=username]", "reader")
        page.fill("input[name=password]", password)
        page.keyboard.press("Enter")
        page.wait_for_selector("table tbody tr")
        page.screenshot(path=HERE / "list.png")
        _open_first_study(page)
        page.set_viewport_size({"width": 1360, "height": 900})
        page.screenshot(path=HERE / "study.png")
        browser.close()


def _open_first_study(page: Page) -> None:
    page.locator("table tbody tr a").first.click()
    page.wait_for_load_state("networkidle")


def _wait_for_results(stack: LocalStack, count: int, *, timeout_s: float = 180.0) -> None:
    ledger = Ledger(load_settings(stack.config).storage.ledger_path)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        counts = Studies(ledger).counts()
        if sum(counts[state] for state in FINAL_STATES) == count:
            break
        time.sleep(0.2)
    ledger.close()


def _command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "ich_triage", *arguments], check=True, capture_output=True)


if __name__ == "__main__":
    main()
