"""`make screenshots`: runs phantoms through the whole system and takes pictures of every page in Chromium."""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from local_stack import HOST, MODELS_FOLDER, LocalStack
from signed_in_reader import add_account
from triage.ledger import Ledger
from triage.ledger.reconciliation import Coverage, Gap, GapState, Reconciliations
from triage.ledger.studies import Studies
from triage.settings import load_settings
from triage.study import FINAL_STATES

HERE = Path(__file__).resolve().parent
PAGES = HERE / "worklist"
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
WIDE = {"width": 1360, "height": 620}
PHONE = {"width": 390, "height": 760}
COLOURS = 128  # of a picture: half the bytes, and no eye sees it
ACCOUNTS = {"reader": "radiologist", "m.okafor": "supervisor", "admin": "administrator", "scientist": "data_scientist"}


def main(models: Path = MODELS_FOLDER) -> None:
    """Take docs/list.png, docs/study.png and those of docs/worklist/."""
    PAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ich-triage-pictures-") as folder:
        phantoms = Path(folder) / "phantoms"
        _command("phantoms", str(phantoms), "--count", "7", "--bleeds", "3", "--smallest-ml", "15", "--seed", "21")
        scout = sorted((phantoms / "phantom_0001").iterdir())[:6]  # a study of six slices: not analysed
        settings = {"worklist": {"research_mode": True}}  # the worker keeps maps; switched off for all but one picture
        with LocalStack(Path(folder) / "storage", models_folder=models, toml=settings) as stack:
            stack.wait_ready("serve")
            port = str(stack.wait_ready("listen")["dicom_port"])
            folders = sorted(path for path in phantoms.iterdir() if path.is_dir())
            _command("send", *map(str, scout), "--port", port)
            for each in folders[1:]:
                _command("send", str(each), "--port", port)
            _wait_for_results(stack, len(folders))
            _record_comparison(stack)
            password = secrets.token_urlsafe(12)
            for name, role in ACCOUNTS.items():
                add_account(stack, name, password, role=role)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
                _take_map(browser, _address(stack), password)
                _end_research(stack)
                _take_reading(browser, _address(stack), password)
                _take_others(browser, _address(stack), password)
                _take_model_away(browser, stack, password)
                browser.close()


def _take_map(browser: Browser, address: str, password: str) -> None:
    page = _signed_in(browser, address, "reader", password)
    _open_first_study(page)
    page.keyboard.press("p")
    _until(page, "document.getElementById('slice').src.endsWith('map=1')")
    page.set_viewport_size(WIDE | {"height": 900})
    page.wait_for_timeout(300)  # the picture follows the page's size
    _keep(page, PAGES / "map.png")
    page.context.close()


def _take_reading(browser: Browser, address: str, password: str) -> None:
    """Take what a radiologist sees."""
    page = browser.new_page(viewport={"width": 680, "height": 480})
    page.goto(f"{address}/sign-in")
    _keep(page, PAGES / "sign-in.png")
    page.context.close()
    page = _signed_in(browser, address, "reader", password)
    _keep(page, HERE / "list.png")
    page.keyboard.press("t")
    _keep(page, PAGES / "list-light.png")
    page.keyboard.press("t")
    page.set_viewport_size(WIDE | {"height": 760})
    for key, name in (("?", "keys"), ("e", "columns")):
        page.keyboard.press(key)
        _keep(page.locator("dialog[open]"), PAGES / f"{name}.png")
        page.keyboard.press("Escape")
    page.goto(f"{address}/list?q=nobody")
    page.set_viewport_size(WIDE | {"height": 420})
    _keep(page, PAGES / "nothing-found.png")
    page.goto(f"{address}/list")
    page.wait_for_selector("#live.on")
    _open_first_study(page)
    page.set_viewport_size(WIDE | {"height": 900})
    _keep(page, HERE / "study.png")
    page.keyboard.press("d")
    _keep(page.locator("dialog[open]"), PAGES / "disagree.png")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.wait_for_selector('[data-step="agree"][aria-pressed="true"]')
    page.context.close()
    phone = _signed_in(browser, address, "reader", password, viewport=PHONE)
    _keep(phone, PAGES / "phone-list.png")
    _open_first_study(phone)
    _keep(phone, PAGES / "phone-study.png")
    phone.context.close()


def _take_others(browser: Browser, address: str, password: str) -> None:
    """Take what administrators, data scientists and programmers see."""
    page = _signed_in(browser, address, "admin", password)
    for name, path in (("intake", "/intake"), ("accounts", "/accounts"), ("audit", "/audit"), ("api", "/api/v1/")):
        page.goto(f"{address}{path}")
        _keep(page, PAGES / f"{name}.png")
    page.context.close()
    page = _signed_in(browser, address, "scientist", password, viewport=WIDE | {"height": 420})
    _keep(page, PAGES / "agreement.png")
    page.context.close()


def _take_model_away(browser: Browser, stack: LocalStack, password: str) -> None:
    page = _signed_in(browser, _address(stack), "reader", password, viewport=WIDE | {"height": 420})
    stack.stop_part("serve")
    page.wait_for_selector("#banner .away", timeout=90_000)
    _keep(page, PAGES / "model-away.png")


def _signed_in(
    browser: Browser, address: str, name: str, password: str, viewport: dict[str, int] | None = None
) -> Page:
    page = browser.new_context(viewport=viewport or WIDE).new_page()
    page.goto(f"{address}/sign-in")
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", password)
    page.keyboard.press("Enter")
    page.wait_for_selector("#live.on" if name != "scientist" else "table")
    return page


def _open_first_study(page: Page) -> None:
    page.locator("table tbody tr a").first.click()
    page.wait_for_selector("#where:not(:empty)")
    _until(page, "[...document.querySelectorAll('.preview img')].every((image) => image.naturalWidth > 0)")


def _until(page: Page, condition: str, *, timeout_s: float = 30.0) -> None:
    """Wait for what a page's script says; Playwright's own wait needs eval, which our pages forbid."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"This did not come about in {timeout_s:g} s: {condition}")
        page.wait_for_timeout(50)


def _keep(shown: Page | Locator, path: Path) -> None:
    """Take a picture of a page or a part of it, with few colours."""
    shown.screenshot(path=path, animations="disabled")
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def _record_comparison(stack: LocalStack) -> None:
    """Record what a comparison with a PACS says whose last study came in part: there is no PACS in this picture."""
    ledger = Ledger(load_settings(stack.config).storage.ledger_path)
    now, today = time.time(), datetime.now().astimezone().date().isoformat()
    studies = Studies(ledger).all()
    here = Studies(ledger).instance_count()
    whole = Coverage(now - 5, now, today, today, len(studies), len(studies) - 1, here + 26, here, 0)
    partly = studies[0]
    gap = Gap(
        partly.study_instance_uid, partly.header.study_date, partly.instance_count + 26, partly.instance_count,
        GapState.FETCH_FAILED, 1, "the PACS answered 0xA701 to C-MOVE",
    )  # fmt: skip
    Reconciliations(ledger).record(replace(whole, gaps=(gap,)))
    ledger.close()


def _end_research(stack: LocalStack) -> None:
    text = stack.config.read_text(encoding="utf-8")
    stack.config.write_text(text.replace("research_mode = true", "research_mode = false"), encoding="utf-8")
    stack.stop_part("worklist")
    stack.start_part("worklist")


def _address(stack: LocalStack) -> str:
    return f"http://{HOST}:{stack.wait_ready('worklist')['worklist_port']}"


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
